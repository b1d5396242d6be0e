"""A logdir with real event files, TensorBoard that serves it with each of its two loaders, and Chromium."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from playwright.sync_api import Page

from benchmarks import page_cost
from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Variable
from tests.critic_run import write_critic
from tests.event_files import RunWriter, series_at, steps_of
from tests.programs import read_verdicts

HOSTILE_NAMES = (
    "<script>window.hacked = true</script>/V",
    "line\nbreak\u202eand bidi/V",
    "long" * 2500 + "/V",
)
HOSTILE = Header(session=0, variables=tuple(Variable(name, name[:-2], (8,), "float32") for name in HOSTILE_NAMES))
START_TIMEOUT_S = 120


def write_hostile(directory: Path) -> None:
    """Write a run whose names imitate markup, hide characters or are very long."""
    norms = np.ones((50, len(HOSTILE.variables)))
    norms[49, 0] = np.nan
    window = steps_of(0, 49, header=HOSTILE, grad_norm=norms)
    finding = Finding("gradient", HOSTILE_NAMES[0], Counts(8, 8, 0, 0))
    alert = Alert(step=49, session=0, first_step=0, action="recorded", findings=(finding,), window=window)
    RunWriter(directory / "nanwatch").header(HOSTILE).spans(window).alert(alert)


def write_damaged(directory: Path) -> None:
    """Write a run of three chunks, with a flipped byte in the second."""
    writer = RunWriter(directory / "nanwatch").header().spans(series_at(range(100)))
    begin = writer.path.stat().st_size
    data = bytearray(writer.spans(series_at(range(100, 200))).spans(series_at(range(200, 300))).path.read_bytes())
    data[begin + 100] ^= 1
    writer.path.write_bytes(data)


@pytest.fixture(scope="session")
def logdir(tmp_path_factory):
    """A logdir with four runs: non-finite, hostile names, finite and damaged."""
    root = tmp_path_factory.mktemp("logdir")
    write_critic(root / "critic")
    write_hostile(root / "<img src=x onerror=alert(1)>")
    RunWriter(root / "calm" / "nanwatch").header().spans(series_at(range(2000)))
    write_damaged(root / "damaged")
    return root


@pytest.fixture(scope="session")
def growing_run(logdir):
    """The writer of a run that has 100 steps and continues."""
    return RunWriter(logdir / "growing" / "nanwatch").header().spans(series_at(range(100)))


@pytest.fixture(scope="session")
def breaking_runs(logdir):
    """The writers of runs with 100 finite steps that a test may make non-finite, by the value of ``--load_fast``."""
    return {
        fast: RunWriter(logdir / f"still-finite-{fast}" / "nanwatch").header().spans(series_at(range(100)))
        for fast in ("true", "false")
    }


@pytest.fixture(scope="session")
def verdicts(logdir, growing_run, breaking_runs):
    """The verdicts of the command line, by run."""
    return read_verdicts(logdir)


class Server(NamedTuple):
    """A TensorBoard process, and the file with its output."""

    process: subprocess.Popen[bytes]
    output: Path


def start_tensorboard(logdir: Path, output: Path, *flags: str) -> Server:
    """Start TensorBoard on a free port."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0", *flags]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    return Server(process, output)


def address_of(server: Server) -> str:
    """Wait until TensorBoard reports its address, and return it."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and server.process.poll() is None:
        if found := re.search(r"at (http://\S+?)/? ", server.output.read_text()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"TensorBoard must start; it printed:\n{server.output.read_text()}")


@contextmanager
def serving(logdir: Path, outputs: Path) -> Iterator[dict[str, str]]:
    """Serve a logdir with each loader, and yield the addresses by the value of ``--load_fast``."""
    servers = {
        fast: start_tensorboard(logdir, outputs / fast, f"--load_fast={fast}", "--reload_interval=1")
        for fast in ("true", "false")
    }
    try:
        yield {fast: address_of(server) for fast, server in servers.items()}
    finally:
        for server in servers.values():
            server.process.terminate()
        for server in servers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(timeout=10)
            # TensorBoard may wait forever for its data server.
            server.process.kill()


@pytest.fixture(scope="session")
def tensorboards(logdir, growing_run, breaking_runs, tmp_path_factory):
    """The addresses of the two TensorBoards, by the value of ``--load_fast``."""
    with serving(logdir, tmp_path_factory.mktemp("tensorboard")) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def chromium():
    """The browser."""
    with page_cost.chromium() as browser:
        yield browser


class Complaints(list[str]):
    """The errors of a page, and its requests to other hosts."""

    def watch(self, page: Page) -> None:
        """Collect from ``page``."""
        page.on("pageerror", lambda error: self.append(f"uncaught: {error}"))
        page.on("console", lambda message: message.type == "error" and self.append(f"console: {message.text}"))
        page.on("request", lambda request: self._check(request.url))

    def _check(self, url: str) -> None:
        if not url.startswith(("http://localhost:", "data:", "blob:http://localhost:")):
            self.append(f"request: {url}")


@pytest.fixture
def page(chromium):
    """An empty page in a fresh browser context. The test fails if the page has complaints at the end."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints = Complaints()
    complaints.watch(page)
    yield page
    context.close()
    assert complaints == []
