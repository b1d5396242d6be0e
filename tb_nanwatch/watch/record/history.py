"""The rows that the host has read from a ring: their numbers, and the steps that they decode to.

Rows are counted, or numbered by the user's steps. A log cannot hold a step that is negative or too large, such as a
time in nanoseconds. Such a row gets the number after that of the row before it.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import STEPS_BELOW, Action, IntArray, Series
from tb_nanwatch.watch.record.ring import Ring, Rows
from tb_nanwatch.watch.row.decoding import Decoder

_Bools = npt.NDArray[np.bool_]
NO_STEPS: Final = Series(np.zeros(0, np.int64), np.zeros(0, np.int64), {})


class Incident(NamedTuple):
    """A bad row: its number, and exact counts of each cell, int64 ``[cells, 4]``."""

    number: int
    counts: IntArray


class Block(NamedTuple):
    """The rows of one read.

    Attributes:
        rows: float32 ``[n, cells]``.
        is_bad: whether each row holds a non-finite value, bool ``[n]``.
        parts: the steps; each part begins where the user's step goes back.
    """

    rows: Rows
    is_bad: _Bools
    parts: list[Series]


class History:
    """Reads a ring, and knows the numbers of the rows that are still in it.

    Attributes:
        rows_read: how many rows were read, with those that were lost.
    """

    def __init__(self, decoder: Decoder, ring: Ring, *, counted: bool) -> None:
        """Begin before the first row.

        Args:
            decoder: reads the rows.
            ring: holds the rows.
            counted: whether a step is the number of its row; else the ring holds the user's steps.
        """
        self._decoder, self._ring, self._counted = decoder, ring, counted
        self._steps = np.zeros(ring.window, np.int64)
        self._numbering = Numbering()
        self.rows_read = 0

    def read(self, incident: Incident | None, *, action: Action) -> Block | None:
        """Return the rows since the last read; ``None`` if there are none.

        If more rows were written than the ring holds, the oldest are lost.

        Args:
            incident: the bad row that the host has to handle; ``None`` if there is none.
            action: what the policy does about a bad step.
        """
        end = self._ring.rows_written()
        first, self.rows_read = max(self.rows_read, end - self._ring.window), end
        if first >= end:
            return None
        rows, given = self._ring.rows(first, end)
        is_bad = np.asarray(~np.isfinite(rows).all(axis=1))
        numbers = np.arange(first, end)
        # Until the host clears an incident, the guard withholds every later update too.
        is_later = numbers > incident.number if incident and action == "raised" else np.zeros_like(is_bad)
        held = np.zeros_like(is_bad) if action == "recorded" else is_bad | is_later
        steps = numbers if self._counted else self._numbering.number_rows(given, held)
        self._steps[numbers % self._ring.window] = steps
        parts = _growing_parts(steps)
        return Block(
            rows,
            is_bad,
            [self._decode(rows[part], steps[part], first=first + part.start, incident=incident) for part in parts],
        )

    def window(self, incident: Incident | None = None) -> Series:
        """Return the last steps, one by one, up to the incident or else the last row; empty before the first row."""
        if not self.rows_read:
            return NO_STEPS
        first = max(0, self.rows_read - self._ring.window)
        end = self.rows_read if incident is None else incident.number + 1
        rows, _ = self._ring.rows(first, end)
        steps = self._steps[np.arange(first, end) % self._ring.window]
        part = _growing_parts(steps)[-1]
        return self._decode(rows[part], steps[part], first=first + part.start, incident=incident)

    def has_row(self, number: int) -> bool:
        """Return whether a row is still in the ring."""
        return number >= self.rows_read - self._ring.window

    def step_of_lost(self, number: int, *, otherwise: int) -> int:
        """Return the step of an incident whose row is no longer in the ring.

        Args:
            number: of the row.
            otherwise: takes the place of a user's step that no log can hold.
        """
        step = number if self._counted else self._ring.incident_step()
        return step if 0 <= step < STEPS_BELOW else otherwise

    def next_step(self, last_step: int) -> int:
        """Return the number of the next step; if the user numbers steps, the number after the last."""
        return self._ring.rows_written() if self._counted else last_step + 1

    def _decode(self, rows: Rows, steps: IntArray, *, first: int, incident: Incident | None) -> Series:
        counts = {}
        if incident is not None and first <= incident.number < first + len(rows):
            counts = {incident.number - first: incident.counts}
        return self._decoder.decode(rows, steps, counts)


def _growing_parts(steps: IntArray) -> list[slice]:
    cuts = [0, *(np.flatnonzero(np.diff(steps) <= 0) + 1).tolist(), len(steps)]
    return [slice(a, b) for a, b in pairwise(cuts)]


class Numbering:
    """Numbers rows by the user's steps, and counts on where these stand still."""

    def __init__(self) -> None:
        """Begin before the first row."""
        self._given = self._last = -1
        self._is_held = self._has_warned = False

    def number_rows(self, given: IntArray, held: npt.NDArray[np.bool_]) -> IntArray:
        """Return the numbers of the rows that follow.

        After a step that stood still, rows are counted on until the user's step is larger again or goes back.

        Args:
            given: the user's step in each row. A step that is negative or not below ``STEPS_BELOW`` is counted on.
            held: whether the update of the row's step was withheld; that update may be what counts the user's steps.

        Returns:
            Numbers that grow, except where the user's step goes back.
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
        """Return the steps, with the step before in place of each that a log cannot hold."""
        is_valid = (given >= 0) & (given < STEPS_BELOW)
        if is_valid.all():
            return given
        self._warn(f"must be from 0 to {STEPS_BELOW - 1}; it was {int(given[~is_valid][0])}")
        places = np.maximum.accumulate(np.where(is_valid, np.arange(1, len(given) + 1), 0))
        return np.concatenate([[self._given], given])[places]

    def _warn(self, requirement: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the step given to tb_nanwatch {requirement}, so steps are counted on from there", stacklevel=2
            )
