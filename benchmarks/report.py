"""The figures as a table, on the terminal and in Markdown, and what they were measured on."""

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
    "Time of a training step over that of the same step bare: median (quartiles) of ratios measured in pairs, each of"
    " two blocks of steps one right after the other, in four processes in turn (a quick run: in one). tb_nanwatch with"
    " its defaults (policy raise, window 256), its log written; Debugger V2 with CONCISE_HEALTH and its default buffer."
)


def table(costs: Sequence[StepCost]) -> Table:
    """Lay the figures out for a terminal."""
    laid = Table(box=box.SIMPLE, caption=CAPTION, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in _headings(costs):
        laid.add_column(heading, no_wrap=True)
    for row in _rows(costs):
        laid.add_row(*row)
    return laid


def comparisons(costs: Sequence[StepCost]) -> list[str]:
    """Say how much less time watching adds to a step than a debugger does, of each network that both were timed on."""
    return [
        f"Of a step of the {cost.network} network, {HEADINGS[setting]} adds {cost.times_less(setting):.0f} times the"
        " time that tb_nanwatch adds"
        for cost in costs
        for setting in cost.ratios
        if setting != "watch"
    ]


def sentences(replays: Sequence[ReplayCost]) -> list[str]:
    """Say how long each replay took."""
    return [f"Replay of {cost.step}: {cost.seconds:.1f} s (found: {cost.operation})" for cost in replays]


def markdown(costs: Sequence[StepCost], replays: Sequence[ReplayCost]) -> str:
    """Write the figures and their circumstances down as a page."""
    headings = _headings(costs)
    rows = [headings, ["---"] * len(headings), *_rows(costs)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    told = [f"- {fact}" for fact in [*comparisons(costs), *sentences(replays), *circumstances()]]
    return "\n".join(["# Cost of a step", "", CAPTION, "", *lines, "", *told, ""])


def circumstances() -> list[str]:
    """Say on what was measured: versions, processor, memory."""
    # From the modules: the package may have another name, such as tensorflow-cpu.
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
        [cost.network, f"{1e3 * cost.bare_s:.2f} ms", *(str(cost.ratios.get(one, "")) for one in costs[0].ratios)]
        for cost in costs
    ]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return named[1] if named else platform.processor() or platform.machine()
