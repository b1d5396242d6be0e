"""What watching adds to a step, as ratios of times that were measured in pairs.

A machine's speed drifts by more than what is measured here. Each ratio is therefore of two blocks of steps taken one
right after the other, in alternating order, and the median of many such ratios is told with its quartiles.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from types import TracebackType
from typing import IO, Final

ROOT: Final = Path(__file__).parent.parent
# A block holds one read of the flight recorder by the host, as every 256 steps of a user's training do.
STEPS_A_BLOCK: Final = 256
# Where steps are so slow that the host reads every ten seconds, a read is lost in their time, and blocks may be short.
LONGEST_BLOCK_S: Final = 1.5
SHORT_BLOCK_S: Final = 0.25
FEWEST_PAIRS: Final = 3
# Ratios of a debugger are far above 1 and need fewer pairs than one that is close to it.
SHARES: Final = {"watch": 0.6, "debugger-v2": 0.2, "check-numerics": 0.2}
FIT: Final = "fit"
XLA: Final = "MNIST, XLA"
_ALONE: Final = {FIT: (FIT, FIT), XLA: ("MNIST", "xla")}
"""Network and setting of what is measured without debuggers.

They watch the thread that switched them on, and a fit here has one of its own; and XLA does not compile what they add.
"""


@dataclass(frozen=True)
class Ratio:
    """Step time over bare step time.

    Attributes:
        lower: first quartile.
        middle: median.
        upper: third quartile.
        pairs: how many ratios these are of.
    """

    lower: float
    middle: float
    upper: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.lower:.2f}-{self.upper:.2f})"


@dataclass(frozen=True)
class StepCost:
    """One network's figures.

    Attributes:
        network: its name.
        bare_s: median seconds of a bare step.
        ratios: by setting of the worker.
    """

    network: str
    bare_s: float
    ratios: dict[str, Ratio]

    def times_less(self, setting: str) -> float:
        """Return how many times the time that a debugger adds to a step is what watching adds; Inf for nothing."""
        added = self.ratios["watch"].middle - 1
        return (self.ratios[setting].middle - 1) / added if added > 0 else math.inf


class Worker:
    """A process that takes steps when it is told to."""

    def __init__(self, network: str, setting: str) -> None:
        """Start it and wait until it is warm.

        Raises:
            RuntimeError: if it ends before that.
        """
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        command = [sys.executable, "-m", "benchmarks.worker", network, setting]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._answer()

    def take(self, step: str, *, steps: int) -> float:
        """Take steps and return the seconds that they took."""
        if self._process.stdin is not None:
            print(step, steps, file=self._process.stdin, flush=True)
        return float(self._answer())

    def __enter__(self) -> Worker:  # noqa: PYI034 - Self came with Python 3.11
        """Return the worker itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process, which removes what it wrote."""
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(
                f"a worker must answer; it ended with {self._process.returncode}:\n{self._errors.read()}"
            )
        return line


def measure(network: str, *, seconds: float, processes: int) -> StepCost:
    """Measure one network.

    Args:
        network: a name in :data:`benchmarks.networks.BUILDERS`, :data:`FIT` or :data:`XLA`.
        seconds: how long to measure, starting and tracing not counted.
        processes: how many to measure the watched step in, one after the other: where a process happens to have its
            tensors in memory makes a difference of a hundredth or two.
    """
    shares = {"watch": 1.0} if network in _ALONE else SHARES
    name, own = _ALONE.get(network, (network, "watch"))
    pairs: dict[str, list[tuple[float, float]]] = {setting: [] for setting in shares}
    for number in range(processes):
        with Worker(name, own) as bare:
            steps = _block(bare)
            share = shares["watch"] / processes
            pairs["watch"] += _pairs(bare, bare, steps=steps, seconds=seconds * share)
            for setting in list(shares)[1:] if number == 0 else []:
                with Worker(name, setting) as other:
                    pairs[setting] += _pairs(bare, other, steps=steps, seconds=seconds * shares[setting])
    bare_s = [without for found in pairs.values() for without, _ in found]
    return StepCost(network, median(bare_s), {setting: _ratio(found) for setting, found in pairs.items()})


def _pairs(bare: Worker, other: Worker, *, steps: int, seconds: float) -> Iterator[tuple[float, float]]:
    """Yield the seconds that a step took, bare and with it, of two blocks one right after the other."""
    name = "watched" if other is bare else "debugged"
    until, number = time.monotonic() + seconds, 0
    while number < FEWEST_PAIRS or time.monotonic() < until:
        if number % 2:
            with_it = other.take(name, steps=steps)
            without = bare.take("bare", steps=steps)
        else:
            without = bare.take("bare", steps=steps)
            with_it = other.take(name, steps=steps)
        yield without / steps, with_it / steps
        number += 1


def _ratio(pairs: list[tuple[float, float]]) -> Ratio:
    lower, middle, upper = quantiles([with_it / without for without, with_it in pairs], n=4, method="inclusive")
    return Ratio(lower, middle, upper, len(pairs))


def _block(bare: Worker) -> int:
    step_s = min(bare.take("bare", steps=4) for _ in range(3)) / 4
    return STEPS_A_BLOCK if step_s * STEPS_A_BLOCK <= LONGEST_BLOCK_S else max(1, round(SHORT_BLOCK_S / step_s))
