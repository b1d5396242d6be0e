"""How large the log of a long run is, how soon it is read, and what it takes of TensorBoard's time and memory."""

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
    """The answers of one route.

    Attributes:
        name: what is asked for.
        median_s: of an answer.
        p99_s: of an answer.
        bytes: of the largest, as JSON.
    """

    name: str
    median_s: float
    p99_s: float
    bytes: int


@dataclass(frozen=True)
class LogCost:
    """What one log costs whoever writes and reads it, beside many short ones in the same directory.

    Attributes:
        run: what was written.
        short_runs: how many are beside it.
        written: what writing took.
        command_s: the least that the command took of several times.
        page: what whoever opens it waits for.
        routes: of the plugin.
        memory_bytes: that TensorBoard takes more with the plugin than without.
    """

    run: LongRun
    short_runs: int
    written: Written
    command_s: float
    page: PageCost
    routes: tuple[RouteCost, ...]
    memory_bytes: int


def log_cost(run: LongRun, *, short_runs: int, requests: int = 100) -> LogCost:
    """Write a run and read it in every way there is.

    Args:
        run: the long one.
        short_runs: how many to write beside it.
        requests: of each route.
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
            # Before the routes, whose answers would be ready for it.
            with chromium() as browser:
                page = page_cost(browser, server.url, run="long", tries=TRIES)
            routes = tuple(_route_cost(server, asked, requests=requests) for asked in _questions(run))
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
    of: dict[str, object] = {"run": "long"}
    yield _Question("verdicts", "verdicts", {})
    yield _Question("series", "series", of)
    yield _Question("heatmap of layers", "heatmap", of)
    yield _Question("heatmap of variables", "heatmap", {**of, "by": "variable"})
    if run.bad_step is not None:
        yield _Question("alert", "alert", {**of, "step": run.bad_step})


def _route_cost(server: TensorBoard, asked: _Question, *, requests: int) -> RouteCost:
    """Ask again and again, of other steps every second time; the first answer makes the others warm."""
    took, size, steps = [], 0, 0
    for number in range(requests + 1):
        is_ranged = steps > 0 and number % 2 == 0
        zoom = {"first": number * steps // (2 * requests), "last": steps - 1 - number} if is_ranged else {}
        began = time.perf_counter()
        answer = server.get(asked.route, **asked.parameters, **zoom)
        took.append(time.perf_counter() - began)
        size = max(size, len(answer))
        steps = steps or json.loads(answer).get("last_step", [0])[-1]
    cuts = quantiles(took[1:], n=100, method="inclusive")
    return RouteCost(asked.name, cuts[49], cuts[98], size)
