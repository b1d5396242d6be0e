"""The flight recorder of a step that a session runs: each row comes to the host with the run that left it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.record.ring import Recorder


class HostRecorder(Recorder):
    """A recorder in the host's memory.

    Attributes:
        cells: cells of a row.
    """

    def __init__(self, *, window: int, cells: int) -> None:
        """Begin with no rows.

        Args:
            window: rows that the ring holds.
            cells: cells of a row.
        """
        self.window, self.cells, self.on_host, self.handles = window, cells, True, frozenset()
        self._rows = np.zeros((window, cells), np.float32)
        self._row_steps = np.zeros(window, np.int64)
        self._written = 0
        self._bad: tuple[int, int, IntArray] | None = None

    def add(self, row: npt.NDArray[np.float32], counts: IntArray, *, step: int) -> bool:
        """Take the row of a step that ran.

        Args:
            row: float32 ``[cells]``.
            counts: int64 ``[cells, 4]``; of a row that was finite at once, nothing.
            step: the user's; of no meaning where rows are counted.

        Returns:
            Whether the step was finite.
        """
        place, is_finite = self._written % self.window, bool(np.isfinite(row).all())
        self._rows[place], self._row_steps[place] = row, step
        if not is_finite and self._bad is None:
            self._bad = self._written, step, counts
        self._written += 1
        return is_finite

    def rows_written(self) -> int:
        """Return how many rows there were."""
        return self._written

    def incident(self) -> int | None:
        """Return the number of the bad row that was not dealt with."""
        return None if self._bad is None else self._bad[0]

    def incident_step(self) -> int:
        """Return the user's step of the incident."""
        return 0 if self._bad is None else self._bad[1]

    def incident_counts(self) -> IntArray:
        """Return the counts of the incident's row."""
        return np.zeros((self._rows.shape[1], 4), np.int64) if self._bad is None else self._bad[2]

    def forget_incident(self) -> None:
        """Make room for the next incident."""
        self._bad = None

    def rows(self, first: int, last: int) -> tuple[npt.NDArray[np.float32], IntArray]:
        """Copy rows; see :class:`Recorder`."""
        places = np.arange(first, last) % self.window
        return self._rows[places], self._row_steps[places]

    def is_bad(self, number: int) -> bool:
        """Return whether a row that is still in the ring holds anything non-finite."""
        return number >= 0 and not bool(np.isfinite(self._rows[number % self.window]).all())
