"""Measures the log of a long run: its size, the time to read it, and TensorBoard's memory and answers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Final, NamedTuple

from benchmarks.long_runs import LongRun, Written, write_run
from benchmarks.page_cost import PageCost, chromium, page_cost
from benchmarks.serving import TensorBoard

ROOT: Final = Path(__file__).parent.parent
SHORT_RUN: Final = LongRun(1024, variables=20)
TRIES: Final = 3


@dataclass(frozen=True)
class RouteCost:
    """Time and size of the answers of one route.

    Attributes:
        name: of the question.
        median_s: median seconds of an answer.
        p99_s: 99th percentile of the seconds of an answer.
        bytes: size of the largest answer, as JSON.
    """

    name: str
    median_s: float
    p99_s: float
    bytes: int


@dataclass(frozen=True)
class LogCost:
    """Cost of writing and reading one log, beside many short runs in the same directory.

    Attributes:
        run: the long run.
        short_runs: number of short runs beside it.
        written: cost of writing the long run.
        command_s: seconds that ``nanwatch`` takes, the least of several.
        page: waiting times in the browser.
        routes: of the plugin.
        memory_bytes: memory of TensorBoard with the plugin, less the memory without it.
    """

    run: LongRun
    short_runs: int
    written: Written
    command_s: float
    page: PageCost
    routes: tuple[RouteCost, ...]
    memory_bytes: int


def log_cost(run: LongRun, *, short_runs: int, requests: int = 100) -> LogCost:
    """Write a run, and read it by the command, the page and each route.

    Args:
        run: the long run.
        short_runs: number of short runs to write beside it.
        requests: number of requests to each route.
    """
    with tempfile.TemporaryDirectory() as directory:
        logdir = Path(directory)
        for number in range(short_runs):
            write_run(logdir / f"short-{number:03}", SHORT_RUN, seed=number)
        written = write_run(logdir / "long", run)
        command_s = min(_command_s(logdir) for _ in range(TRIES))
        with TensorBoard(logdir, plugin=False) as server:
            server.settle()
            without = server.resident_bytes()
        with TensorBoard(logdir) as server:
            server.settle()
            # Before the routes: their requests would warm the cache for the page.
            with chromium() as browser:
                page = page_cost(browser, server.url, run="long", tries=TRIES)
            routes = tuple(_route_cost(server, question, requests=requests) for question in _questions(run))
            return LogCost(run, short_runs, written, command_s, page, routes, server.resident_bytes() - without)


def _command_s(logdir: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tb_nanwatch", str(logdir)], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


class _Question(NamedTuple):
    name: str
    route: str
    parameters: dict[str, object]


def _questions(run: LongRun) -> Iterator[_Question]:
    long: dict[str, object] = {"run": "long"}
    yield _Question("verdicts", "verdicts", {})
    yield _Question("series", "series", long)
    yield _Question("heatmap of layers", "heatmap", long)
    yield _Question("heatmap of variables", "heatmap", {**long, "by": "variable"})
    if run.bad_step is not None:
        yield _Question("alert", "alert", {**long, "step": run.bad_step})


def _route_cost(server: TensorBoard, question: _Question, *, requests: int) -> RouteCost:
    """Time a question, every second time with another range of steps; the first answer only warms the cache."""
    times_s, size, steps = [], 0, 0
    for number in range(requests + 1):
        is_ranged = steps > 0 and number % 2 == 0
        zoom = {"first": number * steps // (2 * requests), "last": steps - 1 - number} if is_ranged else {}
        began = time.perf_counter()
        answer = server.get(question.route, **question.parameters, **zoom)
        times_s.append(time.perf_counter() - began)
        size = max(size, len(answer))
        steps = steps or json.loads(answer).get("last_step", [0])[-1]
    cuts = quantiles(times_s[1:], n=100, method="inclusive")
    return RouteCost(question.name, cuts[49], cuts[98], size)
