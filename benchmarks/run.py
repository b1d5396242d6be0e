"""Measure the cost of watching and of TensorFlow's debuggers: ``python benchmarks/run.py [--quick] [--write]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

# A script has its own folder on the path, but not the parent folder.
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import pages
from benchmarks.log_cost import log_cost
from benchmarks.log_report import FULL, QUICK, log_markdown, log_table
from benchmarks.replay_cost import replay_costs
from benchmarks.report import circumstances, comparisons, markdown, sentences, table
from benchmarks.step_cost import FIT, XLA, measure

RESULTS = Path(__file__).with_name("RESULTS.md")
NETWORKS = ("critic", "MNIST", "AlphaZero", FIT, XLA)
SECONDS, QUICK_SECONDS = 60.0, 6.0
PROCESSES, QUICK_PROCESSES = 4, 1


def main() -> None:
    """Measure each network, the replays and a log, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--quick", action="store_true", help="a shorter run, with wider quartiles")
    parser.add_argument(
        "--write", action="store_true", help="write benchmarks/RESULTS.md and the tables of the pages as well"
    )
    arguments = parser.parse_args()
    seconds, processes = (QUICK_SECONDS, QUICK_PROCESSES) if arguments.quick else (SECONDS, PROCESSES)
    console, costs = Console(), []
    for network in NETWORKS:
        with console.status(f"Measuring the {network} network"):
            costs.append(measure(network, seconds=seconds, processes=processes))
    console.print(table(costs))
    with console.status("Timing replays"):
        replays = replay_costs()
    with console.status("Writing and reading a long log"):
        run, short_runs = QUICK if arguments.quick else FULL
        log = log_cost(run, short_runs=short_runs, requests=30 if arguments.quick else 100)
    console.print(log_table(log))
    for fact in [*comparisons(costs), *sentences(replays), *circumstances()]:
        console.print(fact, highlight=False)
    if arguments.write:
        RESULTS.write_text(f"{markdown(costs, replays)}\n{log_markdown(log)}", encoding="utf-8")
        pages.main([])
        console.print(f"Wrote {RESULTS} and its tables into README.md and docs/cost.md")


if __name__ == "__main__":
    main()
