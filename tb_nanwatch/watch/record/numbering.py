"""The user's steps, as they number the rows of a log: they must grow, even where what counts them stands still.

A log cannot hold a number that is negative or too large, such as a time in nanoseconds. Such rows are counted on.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import STEPS_BELOW, IntArray


class Numbering:
    """Numbers rows by the user's steps, and counts on where these stand still."""

    def __init__(self) -> None:
        """Begin before the first row."""
        self._given = self._last = -1
        self._is_held = self._has_warned = False

    def of(self, given: IntArray, held: npt.NDArray[np.bool_]) -> IntArray:
        """Return the numbers of the rows that follow.

        Where the step has stood still once, all that follow are counted on, until it jumps ahead or goes back.

        Args:
            given: the user's step in each row. One that is negative or not below ``STEPS_BELOW`` is counted on.
            held: whether the update of the row's step was withheld; it may have been what counts the user's steps.

        Returns:
            Smaller than the number before it only where the user's step goes back.
        """
        given = self._within_range(given)
        before, was_held = np.concatenate([[self._given], given[:-1]]), np.concatenate([[self._is_held], held[:-1]])
        stalled = given[(given == before) & ~was_held & (given >= 0)]
        if len(stalled):
            self._warn(f"must grow from one training step to the next; it stood at {int(stalled[0])}")
        numbers = given.copy()
        for row, (now, previous) in enumerate(zip(given.tolist(), before.tolist(), strict=True)):
            numbers[row] = self._last = max(now, self._last + 1) if now >= previous else now
        self._given, self._is_held = int(given[-1]), bool(held[-1])
        return numbers

    def _within_range(self, given: IntArray) -> IntArray:
        """Return the steps, with the one before in place of each that a log cannot hold."""
        is_valid = (given >= 0) & (given < STEPS_BELOW)
        if is_valid.all():
            return given
        self._warn(f"must be from 0 to {STEPS_BELOW - 1}; it was {int(given[~is_valid][0])}")
        places = np.maximum.accumulate(np.where(is_valid, np.arange(1, len(given) + 1), 0))
        return np.concatenate([[self._given], given])[places]

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(f"the step given to tb_nanwatch {what}, so steps are counted on from there", stacklevel=2)
