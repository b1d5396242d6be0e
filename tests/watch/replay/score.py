"""Prints, for each case, what of its verdict is true: ``python -m tests.watch.replay.score [NAME ...]``."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.watch.replay.case import Case
from tests.watch.replay.catalogue import CASES
from tests.watch.replay.outcome import ASPECTS, Mark, marks, outcome


def main(names: list[str]) -> None:
    """Run the cases whose name holds one of ``names``, or all."""
    chosen = [case for case in CASES if not names or any(name in case.name for name in names)]
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for case in chosen:
        started = time.perf_counter()
        found = _marks(case)
        asked.update(mark.aspect for mark in found)
        right.update(mark.aspect for mark in found if mark.right)
        _print(case, found, seconds=time.perf_counter() - started)
    totals = (f"{aspect} {right[aspect]}/{asked[aspect]}" for aspect in (*ASPECTS, "quiet", "runs") if asked[aspect])
    _say(", ".join(totals))


def _marks(case: Case) -> list[Mark]:
    with tempfile.TemporaryDirectory() as logdir:
        try:
            return marks(case, outcome(case, Path(logdir)))
        except Exception as error:  # noqa: BLE001 - one broken case must not end the table
            return [Mark("runs", "a verdict", f"{type(error).__name__}: {error}", right=False)]


def _print(case: Case, found: list[Mark], *, seconds: float) -> None:
    signs = " ".join(f"{mark.aspect}{'' if mark.right else '!'}" for mark in found)
    _say(f"{'ok  ' if all(mark.right for mark in found) else 'FAIL'} {case.name:40} {seconds:5.2f} s  {signs}")
    for mark in found:
        if not mark.right:
            _say(f"         {mark.aspect}: expected {mark.expected}, found {mark.found}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
