"""The demo's runs in the tab. ``make screenshot`` makes README's picture here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import serving
from tests.browser.test_page import drawn_heatmap, open_page, show_run
from tests.programs import read_verdicts, run_demo

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def demo_logdir(tmp_path_factory):
    """The demo's two runs, the finite run shortened to 300 steps."""
    logdir = tmp_path_factory.mktemp("exploding_critic")
    run_demo("exploding_critic", logdir, "--activation", "relu")
    run_demo("exploding_critic", logdir, "--activation", "tanh", "--steps", 300)
    return logdir


@pytest.fixture(scope="module")
def demo_verdicts(demo_logdir):
    return read_verdicts(demo_logdir)


@pytest.fixture(scope="module")
def addresses(demo_logdir, tmp_path_factory):
    with serving(demo_logdir, tmp_path_factory.mktemp("tensorboard")) as found:
        yield found


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_the_page_shows_the_verdict_of_the_command_line(page, addresses, demo_verdicts, load_fast):
    frame = open_page(page, addresses[load_fast], run="relu")
    relu = demo_verdicts["relu"]
    assert relu["status"] == "nonfinite"
    expect(frame.get_by_test_id("verdict")).to_have_text(relu["text"])
    expect(frame.get_by_test_id("selected-step")).to_have_text(f"{relu['first']['step']:,}")
    if relu["first"]["layer"] is None:
        expect(frame.get_by_test_id("selected-layer")).to_have_count(0)
    else:
        expect(frame.get_by_test_id("selected-layer")).to_have_text(relu["first"]["layer"])
    show_run(frame, "tanh")
    expect(frame.get_by_test_id("verdict")).to_have_text(demo_verdicts["tanh"]["text"])
    expect(frame.get_by_test_id("verdict-status")).to_contain_text("Finite")


def test_the_tab_can_be_pictured(page, addresses, tmp_path):
    target = Path(os.environ.get("NANWATCH_SCREENSHOT", tmp_path / "nan-watch.png"))
    page.set_viewport_size({"width": 1280, "height": 980})
    drawn_heatmap(open_page(page, addresses["true"], run="relu"))
    page.wait_for_load_state("networkidle")
    page.screenshot(path=target)
    assert target.read_bytes().startswith(b"\x89PNG")
