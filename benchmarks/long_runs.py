"""Writes long runs as training does: a session reads rows from a ring, thins them, and writes event files.

Only the numbers in the rows are made up. They drift and scatter as in a real training, so that they do not compress or
merge better than real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import Variable
from tb_nanwatch.watch.record.session import Session
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.row.cells import Layout
from tb_nanwatch.watch.row.decoding import RowDecoder
from tb_nanwatch.watch.row.encoding import ABSENT

WINDOW = 256
BLOCKS = 16
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LongRun:
    """A run to write.

    Attributes:
        steps: number of steps.
        variables: number of variables, two for each layer.
        bad_step: the step in which a gradient is NaN; ``None`` for a run that stays finite.
        absent: number of variables without a gradient.
    """

    steps: int
    variables: int = 100
    bad_step: int | None = None
    absent: int = 0

    @property
    def layout(self) -> Layout:
        """The layout of a run that clips: its log holds the most."""
        names = (f"block_{number // 2}/{'kernel' if number % 2 == 0 else 'bias'}" for number in range(self.variables))
        variables = tuple(Variable(name, name.partition("/")[0], (64, 64), "float32") for name in names)
        return Layout(variables, (), loss=True, clip="scale")


@dataclass(frozen=True)
class Written:
    """Cost of writing a run.

    Attributes:
        bytes: size of its files.
        host_s: processor seconds of the host for reading, merging and writing, without the first drain.
        steps: number of steps that these seconds cover.
    """

    bytes: int
    host_s: float
    steps: int


class WholeRing:
    """A ring that the host fills, a whole window of rows at a time."""

    window, on_host = WINDOW, True

    def __init__(self) -> None:
        """Begin with no rows."""
        self._rows: Rows = np.zeros((0, 0), np.float32)
        self._written = 0
        self._incident: int | None = None
        self._counts = np.zeros((0, 4), np.int64)

    def fill(self, rows: Rows, counts: Callable[[int], npt.NDArray[np.int64]]) -> None:
        """Write rows as steps do.

        Args:
            rows: float32 ``[window, cells]``.
            counts: returns the counts of a bad row, given its place.
        """
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad) and self._incident is None:
            self._incident, self._counts = self._written + int(bad[0]), counts(int(bad[0]))
        self._rows = rows
        self._written += len(rows)

    def rows_written(self) -> int:
        """Return how many rows were written."""
        return self._written

    def rows(self, first: int, last: int) -> tuple[Rows, npt.NDArray[np.int64]]:
        """Copy rows, and their steps, which nothing reads where rows are counted."""
        return self._rows[np.arange(first, last) % WINDOW], np.zeros(last - first, np.int64)

    def incident(self) -> int | None:
        """Return the number of the first bad row."""
        return self._incident

    def incident_step(self) -> int:
        """Return no step: rows are counted."""
        return 0

    def incident_counts(self) -> npt.NDArray[np.int64]:
        """Return the counts of the first bad row."""
        return self._counts

    def forget_incident(self) -> None:
        """Clear the incident."""
        self._incident = None


def write_run(directory: Path, run: LongRun, *, seed: int = 0) -> Written:
    """Write a run into a directory, and return the cost.

    Args:
        directory: of the run; it must be new.
        run: the run; its steps are written in whole windows.
        seed: of the numbers.
    """
    layout, draw = run.layout, np.random.default_rng(seed)
    ring = WholeRing()
    session = Session(RowDecoder(layout), policy="record", writer=Writer(str(directory)), ring=ring, counted=True)
    blocks = [_rows(run, draw) for _ in range(BLOCKS)]
    host_s, drains = 0.0, max(1, run.steps // WINDOW)
    for drain in range(drains):
        block = blocks[drain % BLOCKS]
        rows = np.where(block == ABSENT, block, block * np.float32(1 + 0.5 * np.sin(drain / 500)))
        if run.bad_step is not None and run.bad_step // WINDOW == drain:
            rows[run.bad_step % WINDOW, 2:4] = np.nan
        ring.fill(rows, lambda place, rows=rows: _counts(rows[place]))  # type: ignore[misc]
        began = time.thread_time()
        session.collect(action="recorded")
        # The first drain also loads TensorFlow's kernels.
        host_s += time.thread_time() - began if drain else 0.0
    session.close()
    files = (directory / "nanwatch").iterdir()
    return Written(sum(file.stat().st_size for file in files), host_s, (drains - 1) * WINDOW)


def _rows(run: LongRun, draw: np.random.Generator) -> Rows:
    """Draw rows: half sums of squares of gradients, clipped gradients and weights; and the loss."""
    width = run.variables
    gradients = np.exp(draw.normal(-4.0, 1.0, (WINDOW, width)) + draw.normal(0.0, 0.3, (WINDOW, 1)))
    norm = np.sqrt(2 * gradients.sum(axis=1, keepdims=True))
    clipped = gradients * np.minimum(1.0, np.median(norm) / norm) ** 2
    weights = np.exp(draw.normal(2.0, 0.01, (WINDOW, width)))
    gradients[:, : run.absent] = clipped[:, : run.absent] = ABSENT
    loss = draw.normal(1.0, 0.1, (WINDOW, 1)) ** 2
    return np.concatenate([gradients, clipped, weights, loss], axis=1).astype(np.float32)


def _counts(row: Rows) -> npt.NDArray[np.int64]:
    nan = np.isnan(row).astype(np.int64)
    zero = np.zeros_like(nan)
    return np.stack([np.full_like(nan, 4096), nan * 4096, zero, zero], axis=1)
