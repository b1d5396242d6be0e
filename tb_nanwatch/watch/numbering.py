"""The user's steps, as they number the rows of a log: they must grow, even where what counts them stands still."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import IntArray


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
            given: the user's step in each row.
            held: whether the update of the row's step was withheld; it may have been what counts the user's steps.

        Returns:
            Smaller than the number before it only where the user's step goes back.
        """
        before, was_held = np.concatenate([[self._given], given[:-1]]), np.concatenate([[self._is_held], held[:-1]])
        stalled = given[(given == before) & ~was_held]
        if len(stalled):
            self._warn(int(stalled[0]))
        numbers = given.copy()
        for row, (now, previous) in enumerate(zip(given.tolist(), before.tolist(), strict=True)):
            numbers[row] = self._last = max(now, self._last + 1) if now >= previous else now
        self._given, self._is_held = int(given[-1]), bool(held[-1])
        return numbers

    def _warn(self, step: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the step given to tb_nanwatch must grow from one training step to the next; it stood at {step},"
                " so steps are counted on from there",
                stacklevel=2,
            )
