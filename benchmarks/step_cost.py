"""Measures the cost of watching a step, as ratios of times that are measured in pairs.

A machine's speed drifts by more than the cost itself. Each ratio therefore compares two consecutive blocks of steps, in
alternating order. The result is the median of many such ratios, with its quartiles.
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
# In a block the host reads the flight recorder once, as in every 256 steps of a user's training.
STEPS_A_BLOCK: Final = 256
# If steps are so slow that the host reads every ten seconds, a read hardly counts, and blocks may be short.
LONGEST_BLOCK_S: Final = 1.5
SHORT_BLOCK_S: Final = 0.25
FEWEST_PAIRS: Final = 3
# Ratios of a debugger are far above 1, and need fewer pairs than a ratio close to 1.
SHARES: Final = {"watch": 0.6, "debugger-v2": 0.2, "check-numerics": 0.2}
FIT: Final = "fit"
XLA: Final = "MNIST, XLA"
_ALONE: Final = {FIT: (FIT, FIT), XLA: ("MNIST", "xla")}
"""Network and setting of the measurements without debuggers.

A debugger watches only the thread that switched it on, and a fit here has a thread of its own. XLA cannot compile the
operations that a debugger adds.
"""


@dataclass(frozen=True)
class Ratio:
    """Step time divided by bare step time.

    Attributes:
        lower: first quartile.
        middle: median.
        upper: third quartile.
        pairs: number of ratios.
    """

    lower: float
    middle: float
    upper: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.lower:.2f}-{self.upper:.2f})"


@dataclass(frozen=True)
class StepCost:
    """Cost of a step of one network.

    Attributes:
        network: its name.
        bare_s: median seconds of a bare step.
        ratios: by setting of the worker.
    """

    network: str
    bare_s: float
    ratios: dict[str, Ratio]

    def times_less(self, setting: str) -> float:
        """Return how many times as much time a debugger adds to a step as watching; Inf if watching adds none."""
        added = self.ratios["watch"].middle - 1
        return (self.ratios[setting].middle - 1) / added if added > 0 else math.inf


class Worker:
    """A process that takes steps on request."""

    def __init__(self, network: str, setting: str) -> None:
        """Start the process and wait until it is warm.

        Raises:
            RuntimeError: if the process ends before that.
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
        """Take steps, and return the seconds."""
        if self._process.stdin is not None:
            print(step, steps, file=self._process.stdin, flush=True)
        return float(self._answer())

    def __enter__(self) -> Worker:  # noqa: PYI034 - Self came with Python 3.11
        """Return the worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process; it removes its files."""
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
        seconds: duration of the measurement, without starting and tracing.
        processes: number of processes that measure the watched step, one after the other. The place of its tensors in
            memory makes a difference of a hundredth or two between processes.
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
    """Yield the seconds of a step, bare and watched or debugged, from two consecutive blocks."""
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
