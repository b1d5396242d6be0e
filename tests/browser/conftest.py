"""A logdir with real event files, TensorBoard serving it under both of its loaders, and Chromium looking at it."""

from __future__ import annotations

import contextlib
import json
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

HOSTILE_NAMES = (
    "<script>window.hacked = true</script>/V",
    "line\nbreak\u202eand bidi/V",
    "long" * 2500 + "/V",
)
HOSTILE = Header(session=0, variables=tuple(Variable(name, name[:-2], (8,), "float32") for name in HOSTILE_NAMES))
START_TIMEOUT_S = 40


def write_hostile(directory: Path) -> None:
    """Write a run whose names would like to be more than names."""
    norms = np.ones((50, len(HOSTILE.variables)))
    norms[49, 0] = np.nan
    window = steps_of(0, 49, header=HOSTILE, grad_norm=norms)
    finding = Finding("gradient", HOSTILE_NAMES[0], Counts(8, 8, 0, 0))
    alert = Alert(step=49, session=0, first_step=0, action="recorded", findings=(finding,), window=window)
    RunWriter(directory / "nanwatch").header(HOSTILE).spans(window).alert(alert)


def write_damaged(directory: Path) -> None:
    """Write a run of three chunks, in the second of which a byte is flipped."""
    writer = RunWriter(directory / "nanwatch").header().spans(series_at(range(100)))
    begin = writer.path.stat().st_size
    data = bytearray(writer.spans(series_at(range(100, 200))).spans(series_at(range(200, 300))).path.read_bytes())
    data[begin + 100] ^= 1
    writer.path.write_bytes(data)


@pytest.fixture(scope="session")
def logdir(tmp_path_factory):
    """A logdir with a run of each sort."""
    root = tmp_path_factory.mktemp("logdir")
    write_critic(root / "critic")
    write_hostile(root / "<img src=x onerror=alert(1)>")
    RunWriter(root / "calm" / "nanwatch").header().spans(series_at(range(2000)))
    write_damaged(root / "damaged")
    return root


@pytest.fixture(scope="session")
def growing_run(logdir):
    """The writer of a run of 100 steps that is not over yet."""
    return RunWriter(logdir / "growing" / "nanwatch").header().spans(series_at(range(100)))


@pytest.fixture(scope="session")
def breaking_runs(logdir):
    """The writers of runs of 100 finite steps that a test may break, by the value of ``--load_fast``."""
    return {
        fast: RunWriter(logdir / f"still-finite-{fast}" / "nanwatch").header().spans(series_at(range(100)))
        for fast in ("true", "false")
    }


@pytest.fixture(scope="session")
def verdicts(logdir, growing_run, breaking_runs):
    """What the command line says of each run."""
    command = [sys.executable, "-m", "tb_nanwatch", str(logdir), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return {verdict["run"]: verdict for verdict in json.loads(answer.stdout)["runs"]}


class Server(NamedTuple):
    """A TensorBoard that is being started."""

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
    """Wait until TensorBoard says where it listens."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and server.process.poll() is None:
        if found := re.search(r"at (http://\S+?)/? ", server.output.read_text()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"TensorBoard must start; it said:\n{server.output.read_text()}")


@contextmanager
def serving(logdir: Path, outputs: Path) -> Iterator[dict[str, str]]:
    """Serve a logdir with each loader; yields the addresses by the value of ``--load_fast``."""
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
            # It may wait for its data server for ever.
            server.process.kill()


@pytest.fixture(scope="session")
def tensorboards(logdir, growing_run, breaking_runs, tmp_path_factory):
    """The addresses of TensorBoard, by the value of ``--load_fast``."""
    with serving(logdir, tmp_path_factory.mktemp("tensorboard")) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def chromium():
    """The browser."""
    with page_cost.chromium() as browser:
        yield browser


class Complaints(list[str]):
    """What a browser has to complain about in a page, and every request that leaves this machine."""

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
    """An empty page in a browser without a past, which must be left without complaints."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints = Complaints()
    complaints.watch(page)
    yield page
    context.close()
    assert complaints == []
