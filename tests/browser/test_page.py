"""The page as a user sees it: real event files, TensorBoard and Chromium."""

from __future__ import annotations

import re
import urllib.parse

import pytest
from playwright.sync_api import FrameLocator, Page, expect

from tb_nanwatch.schema.records import Alert, Counts, Finding
from tests.event_files import RunWriter, only_at, series_at, steps_of

pytestmark = pytest.mark.browser

HOSTILE_RUN = "<img src=x onerror=alert(1)>"
expect.set_options(timeout=15_000)
# The page polls every 5 s, and TensorBoard reads every second here. The rest is for a busy machine.
RELOAD_MS = 5_000 + 1_000 + 8_000


def open_page(page: Page, address: str, **link: object) -> FrameLocator:
    """Open the tab, and wait for its verdict."""
    keys = "".join(f"&p.nanwatch.{key}={urllib.parse.quote(str(value), safe='')}" for key, value in link.items())
    page.goto(f"{address}/#nanwatch{keys}")
    frame = page.frame_locator("iframe[src*='name=nanwatch']")
    frame.get_by_test_id("verdict").wait_for()
    return frame


def show_run(frame: FrameLocator, run: str) -> None:
    frame.locator(f'[data-testid="run-row"][data-run="{run}"]').click()


def reload_data(page: Page) -> None:
    """Press TensorBoard's own reload button."""
    page.locator("button.reload-button").click()


def drawn_heatmap(frame: FrameLocator):
    """Wait for the heatmap's canvas, and return it."""
    canvas = frame.get_by_test_id("heatmap").locator("canvas")
    canvas.wait_for()
    return canvas


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_the_verdict_is_at_the_top_of_the_page(page, tensorboards, verdicts, load_fast):
    frame = open_page(page, tensorboards[load_fast], run="critic")
    critic = verdicts["critic"]
    assert critic["status"] == "nonfinite"
    expect(frame.get_by_test_id("verdict")).to_have_text(critic["text"])
    expect(frame.get_by_test_id("verdict-status")).to_contain_text("Non-finite")
    expect(frame.get_by_test_id("selected-step")).to_have_text(f"{critic['first']['step']:,}")
    expect(frame.get_by_test_id("selected-layer")).to_have_text(critic["first"]["layer"])
    expect(frame.get_by_test_id("heatmap-cell-text")).to_contain_text("gradient norm Inf")
    expect(frame.get_by_test_id("findings")).to_contain_text("3 +Inf of 64")
    assert frame.get_by_test_id("verdict").bounding_box()["y"] < 200
    expect(frame.get_by_test_id("timeline").locator("canvas")).to_have_count(4)


def test_without_a_link_the_page_opens_with_a_non_finite_run(page, tensorboards, verdicts):
    frame = open_page(page, tensorboards["true"])
    shown = frame.locator('[data-testid="run-row"][aria-current="true"]').get_attribute("data-run")
    assert verdicts[shown]["status"] == "nonfinite"
    assert frame.get_by_test_id("run-row").count() == len(verdicts)


def test_a_finite_run_is_called_finite(page, tensorboards, verdicts):
    frame = open_page(page, tensorboards["true"])
    show_run(frame, "calm")
    expect(frame.get_by_test_id("verdict")).to_have_text(verdicts["calm"]["text"])
    expect(frame.get_by_test_id("verdict-status")).to_contain_text("Finite")
    expect(frame.get_by_test_id("findings")).to_have_count(0)


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_a_damaged_run_is_not_called_finite(page, tensorboards, verdicts, load_fast):
    damaged = verdicts["damaged"]
    frame = open_page(page, tensorboards[load_fast], run="damaged")
    expect(frame.get_by_test_id("verdict")).to_have_text(
        "Part of the log could not be read; the 200 steps that were read are finite."
    )
    expect(frame.get_by_test_id("verdict-status")).to_contain_text("Incomplete")
    expect(frame.locator(".problems")).to_have_text(f"Part of the log could not be read. {damaged['unreadable'][0]}")
    row = frame.locator('[data-testid="run-row"][data-run="damaged"]')
    expect(row).to_contain_text("Incomplete")


def test_a_click_on_a_cell_selects_its_step_and_layer_in_both_charts(page, tensorboards):
    frame = open_page(page, tensorboards["true"], run="critic")
    box = drawn_heatmap(frame).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 5)
    expect(frame.get_by_test_id("selected-layer")).to_have_text("l4")
    step = int(frame.get_by_test_id("selected-step").inner_text())
    assert 190 < step < 220
    expect(frame.get_by_test_id("timeline").get_by_role("heading", name="l4")).to_be_visible()
    for chart in ("timeline", "heatmap"):
        marks = frame.get_by_test_id(chart).locator(".mark-selected")
        assert abs(marks.first.bounding_box()["x"] - (box["x"] + box["width"] / 2)) < 20


def test_the_tooltip_shows_the_numbers_of_the_cell_under_the_pointer(page, tensorboards):
    frame = open_page(page, tensorboards["true"], run="critic")
    box = drawn_heatmap(frame).bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + box["height"] - 5)
    tooltip = frame.locator(".tooltip")
    for text in ("l4", "Gradient norm", "After clipping", "Clip ratio", "Weight norm"):
        expect(tooltip).to_contain_text(text)
    page.mouse.move(5, 5)
    expect(tooltip).to_have_count(0)


def test_arrow_keys_move_the_selection(page, tensorboards, verdicts):
    first = verdicts["critic"]["first"]
    frame = open_page(page, tensorboards["true"], run="critic", step=first["step"], layer=first["layer"])
    drawn_heatmap(frame)
    frame.get_by_role("application").focus()
    page.keyboard.press("ArrowUp")
    expect(frame.get_by_test_id("selected-layer")).to_have_text("l3")
    page.keyboard.press("Home")
    expect(frame.get_by_test_id("selected-step")).to_have_text("0")
    expect(frame.get_by_test_id("heatmap-cell-text")).to_contain_text("l3: gradient norm")


def test_dragging_zooms_to_single_steps_and_a_double_click_shows_all(page, tensorboards):
    frame = open_page(page, tensorboards["true"], run="critic")
    box = drawn_heatmap(frame).bounding_box()
    all_steps = frame.get_by_text("steps 0 to 411")
    all_steps.wait_for()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 30, steps=3)
    page.mouse.up()
    expect(frame.get_by_text(re.compile(r"steps 3\d\d to 411"))).to_be_visible()
    expect(frame.get_by_test_id("heatmap-cell-text")).to_have_text(re.compile(r"^Step 411, l3_1: gradient norm Inf"))
    expect(frame.get_by_test_id("selected-step")).to_have_text("411")
    page.mouse.dblclick(box["x"] + 50, box["y"] + 30)
    expect(all_steps).to_be_visible()


def test_the_rows_of_the_heatmap_can_be_variables(page, tensorboards, verdicts):
    frame = open_page(page, tensorboards["true"], run="critic")
    frame.get_by_role("button", name="Variables", exact=True).click()
    heatmap = frame.get_by_test_id("heatmap")
    expect(heatmap.get_by_role("button", name="l3_1/g", exact=True)).to_be_visible()
    expect(frame.get_by_test_id("heatmap-cell-text")).to_contain_text(verdicts["critic"]["first"]["variable"])


def test_zooming_waits_until_the_steps_are_known(page, tensorboards):
    page.route(re.compile("/series"), lambda route: None)
    frame = open_page(page, tensorboards["true"], run="critic", step=100, layer="l3_2")
    zoom = frame.get_by_role("button", name="Zoom to selection")
    expect(frame.get_by_test_id("selected-layer")).to_have_text("l3_2")
    expect(zoom).to_be_disabled()
    # Let the held request go on.
    page.unroute(re.compile("/series"))
    zoom.click()
    expect(frame.get_by_text("steps 74 to 126")).to_be_visible()


def test_reloading_keeps_run_zoom_and_selection(page, tensorboards):
    frame = open_page(page, tensorboards["true"], run="critic", step=100, layer="l3_2")
    expect(frame.get_by_test_id("selected-layer")).to_have_text("l3_2")
    with page.expect_response(re.compile("/series.*first=74")):
        frame.get_by_role("button", name="Zoom to selection").click()
    zoomed = frame.get_by_text("steps 74 to 126")
    zoomed.wait_for()
    # Only the button makes the page request the charts of an unchanged run again.
    with page.expect_response(re.compile("/series")):
        reload_data(page)
    page.wait_for_timeout(500)
    expect(zoomed).to_be_visible()
    expect(frame.get_by_test_id("selected-step")).to_have_text("100")
    expect(frame.get_by_test_id("selected-layer")).to_have_text("l3_2")


def test_the_address_carries_the_selection(page, tensorboards, verdicts):
    frame = open_page(page, tensorboards["true"])
    show_run(frame, "critic")
    box = drawn_heatmap(frame).bounding_box()
    expect(frame.get_by_test_id("verdict")).to_have_text(verdicts["critic"]["text"])
    page.mouse.click(box["x"] + 30, box["y"] + box["height"] - 5)
    page.wait_for_url(re.compile(r"#nanwatch.*p\.nanwatch\.run=critic.*p\.nanwatch\.layer=l4"))
    step = frame.get_by_test_id("selected-step").inner_text()
    page.reload()
    expect(frame.get_by_test_id("verdict")).to_have_text(verdicts["critic"]["text"])
    expect(frame.get_by_test_id("selected-step")).to_have_text(step)


def test_names_are_shown_as_text_whatever_they_contain(page, tensorboards):
    frame = open_page(page, tensorboards["true"])
    show_run(frame, HOSTILE_RUN)
    expect(frame.get_by_test_id("verdict")).to_contain_text("<script>window.hacked = true</script>/V")
    expect(frame.get_by_test_id("selected-layer")).to_have_text("<script>window.hacked = true</script>")
    expect(frame.get_by_test_id("heatmap")).to_contain_text("line\\nbreak\\u{202e}and bidi")
    assert frame.locator("body img, body script:not([type=module])").count() == 0
    body = frame.locator("body")
    assert body.evaluate("() => window.hacked") is None
    assert body.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("run", ["critic", HOSTILE_RUN])
def test_nothing_is_wider_than_the_window(page, tensorboards, run):
    frame = open_page(page, tensorboards["true"], run=run)
    for width in (1280, 760, 480):
        page.set_viewport_size({"width": width, "height": 900})
        drawn_heatmap(frame)
        frame.get_by_test_id("findings").wait_for()
        fits = "() => document.documentElement.scrollWidth <= innerWidth"
        page.wait_for_timeout(200)
        assert frame.locator("body").evaluate(fits), f"at {width} pixels"


def test_the_page_follows_tensorboards_dark_mode_on_and_off(page, tensorboards):
    frame = open_page(page, tensorboards["true"])
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = frame.locator("body").evaluate(background)
    page.evaluate("document.body.classList.add('dark-mode')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    assert frame.locator("body").evaluate(background) != light
    page.evaluate("document.body.classList.remove('dark-mode')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "light")
    assert frame.locator("body").evaluate(background) == light


def test_a_failure_is_shown_as_a_sentence_above_the_last_answer(page, tensorboards, verdicts):
    frame = open_page(page, tensorboards["true"], run="critic")
    drawn_heatmap(frame)
    wrong = {"status": 200, "content_type": "application/json", "body": '{"schema":1,"runs":7}'}
    page.route(re.compile("/verdicts"), lambda route: route.fulfill(**wrong))
    reload_data(page)
    expect(frame.get_by_role("status")).to_contain_text("must hold a list at verdicts.runs")
    expect(frame.get_by_test_id("verdict")).to_have_text(verdicts["critic"]["text"])
    page.unroute(re.compile("/verdicts"))
    reload_data(page)
    expect(frame.get_by_role("status")).not_to_contain_text("verdicts.runs")


def test_new_steps_of_a_run_appear_and_the_selection_stays(page, tensorboards, growing_run):
    frame = open_page(page, tensorboards["true"], run="growing", step=30, layer="l2")
    expect(frame.get_by_text("steps 0 to 99", exact=True)).to_be_visible()
    growing_run.spans(series_at(range(100, 200)))
    expect(frame.get_by_text("steps 0 to 199", exact=True)).to_be_visible()
    expect(frame.get_by_test_id("selected-step")).to_have_text("30")
    expect(frame.get_by_test_id("selected-layer")).to_have_text("l2")


def turn_to_nan(writer: RunWriter) -> None:
    """Write steps 100 to 149, the last of which has a NaN in a gradient of layer ``l1``, and its alert."""
    window = steps_of(100, 149, grad_norm=only_at(149, float("nan"), first=100, last=149, width=4))
    finding = Finding("gradient", "l1/V", Counts(12, 1, 0, 0))
    writer.spans(window).alert(
        Alert(step=149, session=0, first_step=100, action="recorded", findings=(finding,), window=window)
    )


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_a_new_alert_of_the_shown_run_appears_and_zoom_and_selection_stay(page, tensorboards, breaking_runs, load_fast):
    frame = open_page(page, tensorboards[load_fast], run=f"still-finite-{load_fast}", step=30, layer="l2")
    zoomed = frame.get_by_text("steps 24 to 36", exact=True)
    with page.expect_response(re.compile("/heatmap.*first=24&last=36")):
        frame.get_by_role("button", name="Zoom to selection").click()
    zoomed.wait_for()
    expect(frame.get_by_test_id("verdict-status")).to_contain_text("Finite")
    # The page requests the charts again with the same zoom.
    with page.expect_response(re.compile("/heatmap.*first=24&last=36"), timeout=RELOAD_MS):
        turn_to_nan(breaking_runs[load_fast])
        expect(frame.get_by_test_id("verdict-status")).to_contain_text("Non-finite", timeout=RELOAD_MS)
    expect(frame.get_by_test_id("verdict")).to_contain_text("149")
    expect(frame.get_by_test_id("findings")).to_contain_text("1 NaN of 12")
    page.wait_for_timeout(500)
    expect(zoomed).to_be_visible()
    expect(frame.get_by_test_id("selected-step")).to_have_text("30")
    expect(frame.get_by_test_id("selected-layer")).to_have_text("l2")


def test_without_data_the_page_explains_how_to_begin(page, tensorboards):
    nothing = {"content_type": "application/json", "body": '{"schema":1,"runs":[]}'}
    page.route(re.compile("/verdicts"), lambda route: route.fulfill(**nothing))
    page.goto(f"{tensorboards['true']}/#nanwatch")
    empty = page.frame_locator("iframe[src*='name=nanwatch']").get_by_test_id("empty")
    expect(empty).to_contain_text("tb_nanwatch.Watch(LOGDIR, model.trainable_variables)")
    expect(empty).to_contain_text("nanwatch LOGDIR")
