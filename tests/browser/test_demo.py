"""What the demo's runs look like in the tab. README's screenshot is made here: ``make screenshot``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import serving
from tests.browser.test_page import drawn, open_page, show_run

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo_logdir(tmp_path_factory):
    """The demo's two runs, trained for this test; the finite one not to its end."""
    logdir = tmp_path_factory.mktemp("exploding_critic")
    for flags in (["--activation", "relu"], ["--activation", "tanh", "--steps", "300"]):
        command = [sys.executable, str(ROOT / "demo" / "exploding_critic.py"), "--logdir", str(logdir), *flags]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return logdir


@pytest.fixture(scope="module")
def verdict_of(demo_logdir):
    command = [sys.executable, "-m", "tb_nanwatch", str(demo_logdir), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return {verdict["run"]: verdict for verdict in json.loads(answer.stdout)["runs"]}


@pytest.fixture(scope="module")
def addresses(demo_logdir, tmp_path_factory):
    with serving(demo_logdir, tmp_path_factory.mktemp("tensorboard")) as found:
        yield found


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_the_page_shows_what_the_command_line_says(page, addresses, verdict_of, load_fast):
    frame = open_page(page, addresses[load_fast], run="relu")
    relu = verdict_of["relu"]
    assert relu["status"] == "nonfinite"
    expect(frame.get_by_test_id("verdict")).to_have_text(relu["text"])
    expect(frame.get_by_test_id("selected-step")).to_have_text(f"{relu['first']['step']:,}")
    if relu["first"]["layer"] is None:
        expect(frame.get_by_test_id("selected-layer")).to_have_count(0)
    else:
        expect(frame.get_by_test_id("selected-layer")).to_have_text(relu["first"]["layer"])
    show_run(frame, "tanh")
    expect(frame.get_by_test_id("verdict")).to_have_text(verdict_of["tanh"]["text"])
    expect(frame.get_by_test_id("verdict-status")).to_contain_text("Finite")


def test_the_tab_can_be_pictured(page, addresses, tmp_path):
    target = Path(os.environ.get("NANWATCH_SCREENSHOT", tmp_path / "nan-watch.png"))
    page.set_viewport_size({"width": 1280, "height": 980})
    drawn(open_page(page, addresses["true"], run="relu"))
    page.wait_for_load_state("networkidle")
    page.screenshot(path=target)
    assert target.read_bytes().startswith(b"\x89PNG")
