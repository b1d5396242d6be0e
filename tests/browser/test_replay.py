"""The chain of a replay as a user sees it: real event files, TensorBoard and Chromium."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import serving
from tests.browser.replayed_runs import write_replayed
from tests.browser.test_page import open_page, show_run
from tests.programs import read_verdicts

pytestmark = pytest.mark.browser

FITS = "() => document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def replayed_logdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("replayed")
    write_replayed(root)
    return root


@pytest.fixture(scope="module")
def addresses(replayed_logdir, tmp_path_factory):
    with serving(replayed_logdir, tmp_path_factory.mktemp("tensorboard")) as found:
        yield found


@pytest.fixture
def opened(page, addresses):
    """A function that opens the tab with a run whose bad step was replayed."""

    def open_run(run, load_fast="true"):
        frame = open_page(page, addresses[load_fast], run=run)
        frame.get_by_test_id("findings").wait_for()
        return frame

    return open_run


def hops(frame):
    return frame.get_by_test_id("hop").locator(".hop-head:visible")


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_the_origin_shows_its_source_line_its_inputs_and_its_samples(opened, load_fast):
    frame = opened("square", load_fast)
    origin = frame.get_by_test_id("hop").first
    for text in ("+Inf", "Square", "train_step/Square", "3 +Inf of 64", "7, 31, 50"):
        expect(origin).to_contain_text(text)
    expect(origin.get_by_test_id("excerpt")).to_contain_text("with tf.GradientTape() as tape:")
    marked = origin.locator(".line-marked")
    expect(marked).to_have_count(1)
    expect(marked).to_contain_text("41")
    expect(marked.locator(".line-text")).to_have_text("    loss = tf.reduce_mean(tf.square(returns - value))")
    cells = origin.get_by_test_id("operands").locator("tbody tr").first.locator("th, td")
    expect(cells).to_have_text(["sub:0", "float32 [64, 1]", "-2.5e19", "3.1e18", "0", "none"])


def test_the_verdict_names_operation_source_line_and_evidence(opened):
    frame = opened("square")
    facts = frame.locator(".origin")
    for text in ("Square", "critic.py:41 in train_step", "loss = tf.reduce_mean", "seen in a replay"):
        expect(facts).to_contain_text(text)
    expect(frame.get_by_test_id("notes")).to_contain_text("The step drew random numbers")
    show_run(frame, "alone")
    expect(facts).to_contain_text("from the records")
    expect(frame.get_by_test_id("replay")).to_have_count(0)


def test_hops_open_on_a_click_and_the_stack_is_folded(opened):
    frame = opened("square")
    last = frame.get_by_test_id("chain").first.get_by_test_id("hop").nth(2)
    inputs = last.get_by_test_id("operands")
    expect(inputs).not_to_be_visible()
    last.locator(".hop-head").click()
    expect(inputs.locator("tbody tr").last.locator("th, td")).to_have_text(
        ["sub:0", "float32 [64, 1]", "–", "–", "0", "61 +Inf, 3 NaN"]
    )
    outer = frame.get_by_text("train_step(states, returns)")
    expect(outer).not_to_be_visible()
    frame.get_by_text("Stack of 2 calls").click()
    expect(outer).to_be_visible()


def test_further_origins_are_listed_and_folded(opened):
    frame = opened("square")
    other = frame.get_by_test_id("other-chain")
    expect(other.locator("> summary")).to_have_text("-InfLog2 hopslossentropycritic.py:29")
    expect(other.get_by_test_id("excerpt").first).not_to_be_visible()
    other.locator("> summary").click()
    expect(other.get_by_test_id("excerpt").first).to_contain_text("tf.math.log(p)")
    expect(other.get_by_test_id("operands").first).to_contain_text("probabilities:0")


def test_a_long_chain_shows_its_ends_until_a_click_unfolds_it(opened):
    frame = opened("long")
    expect(hops(frame)).to_have_count(7)
    expect(hops(frame).nth(5)).to_contain_text("41")
    frame.get_by_role("button", name="35 more").click()
    expect(hops(frame)).to_have_count(42)
    numbers = hops(frame).locator(".hop-number").all_inner_texts()
    assert numbers == [str(number) for number in range(1, 43)]


def test_a_value_of_the_batch_is_named_as_an_argument_without_an_operation(opened):
    frame = opened("batch")
    expect(hops(frame)).to_have_count(1)
    expect(hops(frame)).to_contain_text("Argumentstates")
    expect(frame.get_by_test_id("hop")).to_contain_text("64 NaN of 640")
    expect(frame.get_by_test_id("hop")).to_contain_text("0–63 (64 or more)")
    expect(frame.get_by_test_id("excerpt")).to_have_count(0)
    expect(frame.locator(".origin")).not_to_contain_text("Operation")


@pytest.mark.parametrize(
    ("run", "sentence"),
    [("lucky", "this time everything in it was finite"), ("stuck", "could not be run again, or not to its end (60 s)")],
)
def test_a_replay_without_an_origin_says_why(opened, run, sentence):
    frame = opened(run)
    expect(frame.get_by_test_id("replay")).to_contain_text(sentence)
    expect(frame.get_by_test_id("hop")).to_have_count(0)


def test_the_call_that_loads_the_batch_can_be_copied(page, opened):
    frame = opened("square")
    call = 'tb_nanwatch.load_batch("square/nanwatch/batches/step-29.npz")'
    expect(frame.get_by_test_id("batch")).to_have_text(call)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    frame.get_by_role("button", name="Copy").click()
    expect(frame.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == call


def test_the_call_can_be_copied_even_if_the_browser_refuses_the_clipboard(page, opened):
    frame = opened("square")
    page.frames[-1].evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    frame.get_by_role("button", name="Copy").click()
    expect(frame.get_by_role("button", name="Copied")).to_be_visible()
    selected = frame.locator("body").evaluate("() => getSelection().toString()")
    assert selected == 'tb_nanwatch.load_batch("square/nanwatch/batches/step-29.npz")'


def test_hostile_names_are_shown_as_text_and_keep_the_layout(page, opened):
    frame = opened("hostile")
    origin = frame.get_by_test_id("hop").first
    expect(origin).to_contain_text("<img src=x onerror=window.hacked=true>tf.\\u{202e}exp\\u{202c}\\u{7}")
    for summary in ("Stack of 50 calls", "Show all 31 inputs", "Show all 9"):
        frame.get_by_text(summary).first.click()
    frame.get_by_test_id("other-chain").first.locator("> summary").click()
    expect(origin.get_by_test_id("operands").locator("tbody tr")).to_have_count(31)
    body = frame.locator("body")
    assert frame.locator("body img, body script:not([type=module])").count() == 0
    assert body.evaluate("() => window.hacked") is None
    for width in (1600, 900, 420):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        assert body.evaluate(FITS), f"at {width} pixels"
        assert frame.locator(".hop-head").first.bounding_box()["height"] < 100


def test_the_page_does_not_mention_clipping_if_nothing_is_clipped(opened):
    frame = opened("square")
    frame.get_by_role("button", name="l2", exact=True).click()
    description = frame.get_by_test_id("heatmap-cell-text")
    expect(description).to_have_text("Step 29, l2: gradient norm NaN; weight norm 1.414")
    for name in ("After clipping", "Clip ratio"):
        expect(frame.get_by_text(name)).to_have_count(0)


def test_the_command_line_names_the_same_origins(replayed_logdir, opened):
    square = read_verdicts(replayed_logdir)["square"]
    frame = opened("square")
    expect(frame.get_by_test_id("verdict")).to_have_text(square["text"])
    types = frame.get_by_test_id("chain").first.locator(".hop-name > .name").all_inner_texts()
    assert types == [link["op"]["type"] for link in square["chain"]]
