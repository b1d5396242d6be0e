"""Formats the cost of a step as a table, for the terminal and in Markdown, with the machine and the versions."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich import box
from rich.table import Table

import tb_nanwatch
from benchmarks.replay_cost import ReplayCost
from benchmarks.step_cost import StepCost

HEADINGS = {"watch": "tb_nanwatch", "debugger-v2": "Debugger V2", "check-numerics": "check_numerics"}
CAPTION = (
    "Time of a training step divided by the time of the same step bare (unwatched): median (quartiles) of ratios"
    " measured in pairs. Each pair is two consecutive blocks of steps. Four processes measure in turn (in a quick run,"
    " one). tb_nanwatch runs with its defaults (policy raise, window 256) and writes its log; Debugger V2 runs with"
    " CONCISE_HEALTH and its default buffer."
)


def table(costs: Sequence[StepCost]) -> Table:
    """Return the figures as a table for a terminal."""
    laid = Table(box=box.SIMPLE, caption=CAPTION, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in _headings(costs):
        laid.add_column(heading, no_wrap=True)
    for row in _rows(costs):
        laid.add_row(*row)
    return laid


def comparisons(costs: Sequence[StepCost]) -> list[str]:
    """Return a sentence for each network and debugger: how many times as much time the debugger adds to a step."""
    return [
        f"{HEADINGS[setting]} adds {cost.times_less(setting):.0f} times as much time to a step of the {cost.network}"
        " network as tb_nanwatch"
        for cost in costs
        for setting in cost.ratios
        if setting != "watch"
    ]


def sentences(replays: Sequence[ReplayCost]) -> list[str]:
    """Return a sentence for each replay: how long it took."""
    return [f"Replay of {cost.step}: {cost.seconds:.1f} s (found: {cost.operation})" for cost in replays]


def markdown(costs: Sequence[StepCost], replays: Sequence[ReplayCost]) -> str:
    """Format the figures, the machine and the versions as a page."""
    headings = _headings(costs)
    rows = [headings, ["---"] * len(headings), *_rows(costs)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    facts = [f"- {fact}" for fact in [*comparisons(costs), *sentences(replays), *circumstances()]]
    return "\n".join(["# Cost of a step", "", CAPTION, "", *lines, "", *facts, ""])


def circumstances() -> list[str]:
    """Return the versions, the processor and the memory of this measurement."""
    # Versions of the modules: the package may have another name, such as tensorflow-cpu.
    versions = [f"{module.__name__} {module.__version__}" for module in (tb_nanwatch, tf, keras, np)]
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ", ".join([f"Python {platform.python_version()}", *versions]),
        f"{_processor()}, {os.cpu_count()} cores, {gibibytes:.0f} GiB of memory, {platform.system()}",
    ]


def _headings(costs: Sequence[StepCost]) -> list[str]:
    return ["Network", "Bare step", *(HEADINGS[setting] for setting in costs[0].ratios)]


def _rows(costs: Sequence[StepCost]) -> list[list[str]]:
    return [
        [
            cost.network,
            f"{1e3 * cost.bare_s:.2f} ms",
            *(str(cost.ratios.get(setting, "")) for setting in costs[0].ratios),
        ]
        for cost in costs
    ]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
