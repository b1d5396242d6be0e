"""Formats the cost of a log as a table, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich import box
from rich.table import Table

from benchmarks.log_cost import LogCost, RouteCost
from benchmarks.long_runs import LongRun

FULL = LongRun(10_000_000, bad_step=8_750_000), 200
QUICK = LongRun(100_000, bad_step=87_500), 40
CAPTION = (
    "The long run has the stated length and clips its gradients. It lies beside short runs in one directory, and the"
    " session that training uses has written it. Host: processor time for reading, merging and writing, per step."
    " Command: seconds of the whole process, the least of three. Page: seconds in Chromium, from the moment when"
    " TensorBoard has loaded itself and begins to load the page; the median (slowest) of three fresh browsers, and the"
    " median from the request for the address. Routes: median (99th percentile) of answers over changing ranges, packed"
    " as a browser requests them. Memory: all processes of TensorBoard with the plugin, less those without it."
)


def log_table(cost: LogCost) -> Table:
    """Return the figures as a table for a terminal."""
    laid = Table(box=box.SIMPLE, caption=CAPTION, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    for row in log_rows(cost):
        laid.add_row(*row)
    return laid


def log_markdown(cost: LogCost) -> str:
    """Format the figures as a section of a page."""
    rows: Sequence[Sequence[str]] = [["Figure", "Value"], ["---", "---"], *log_rows(cost)]
    return "\n".join(["# Cost of a log", "", CAPTION, "", *("| " + " | ".join(row) + " |" for row in rows), ""])


def log_rows(cost: LogCost) -> list[list[str]]:
    """Return the rows of the table: a quantity and its figure."""
    run, written, page = cost.run, cost.written, cost.page
    return [
        ["Run", f"{run.steps:,} steps of {run.variables:,} variables, and {cost.short_runs} short ones"],
        ["Log of the run", f"{written.bytes / 1e6:.0f} MB"],
        ["Host, per step", f"{1e6 * written.host_s / written.steps:.1f} µs"],
        ["nanwatch LOGDIR", f"{cost.command_s:.1f} s"],
        ["Page: TensorBoard's own", f"{median(page.own_s):.2f} ({max(page.own_s):.2f}) s"],
        ["Page: verdict, after that", _waits(page.verdict_s, from_address_s=page.verdict_from_address_s)],
        ["Page: heatmap, after that", _waits(page.heatmap_s, from_address_s=page.heatmap_from_address_s)],
        *([f"Route: {route.name}", _answers(route)] for route in cost.routes),
        ["Memory of TensorBoard", f"{cost.memory_bytes / 1e6:+.0f} MB"],
    ]


def _waits(times_s: Sequence[float], *, from_address_s: float) -> str:
    return f"{median(times_s):.2f} ({max(times_s):.2f}) s, {from_address_s:.2f} s from the address"


def _answers(route: RouteCost) -> str:
    return f"{1e3 * route.median_s:.0f} ({1e3 * route.p99_s:.0f}) ms, {route.bytes / 1e3:.0f} kB"
