"""The ring: the latest rows of a session and its oldest unread incident, in device memory or in the host's.

A step that TensorFlow 2 runs writes its row into variables. Nothing there talks to the host while a step runs, so it
works inside XLA, on an accelerator, and in a loop of many steps a call. The host reads the ring between steps. A
session of TensorFlow 1 fetches each row with the run that made it, and the host keeps the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.variables import device_variable

Rows = npt.NDArray[np.float32]
NO_INCIDENT = -1


class Ring(Protocol):
    """What the host reads of a session.

    An *incident* is the first bad row since the host last cleared one. Rows are numbered from 0.
    """

    @property
    def window(self) -> int:
        """How many rows the ring holds."""

    @property
    def on_host(self) -> bool:
        """Whether the ring is in the host's memory, so that a read does not wait for a device."""

    def rows_written(self) -> int:
        """Return how many rows were written since the session began."""

    def rows(self, first: int, last: int) -> tuple[Rows, IntArray]:
        """Copy rows to the host.

        Args:
            first: number of the first row; it must still be in the ring.
            last: number of the last row, exclusive.

        Returns:
            float32 ``[n, cells]`` and the user's steps, int64 ``[n]``.
        """

    def incident(self) -> int | None:
        """Return the number of the incident's row; ``None`` if there is no incident."""

    def incident_step(self) -> int:
        """Return the user's step of the incident."""

    def incident_counts(self) -> IntArray:
        """Return the exact counts of the incident's row, int64 ``[cells, 4]``."""

    def forget_incident(self) -> None:
        """Clear the incident, so that the ring can hold the next one."""


class Entry(NamedTuple):
    """A row to be written.

    Attributes:
        number: from :meth:`DeviceRing.next_row`, int64 scalar.
        row: float32 ``[cells]``.
        step: the user's step, int64 scalar; ``None`` where rows are counted.
        is_more: whether the entry adds to the last row, as a second optimizer of the same step does.
    """

    number: tf.Tensor
    row: tf.Tensor
    step: tf.Tensor | None
    is_more: bool = False


class DeviceRing:
    """A ring in device memory, which the step's own operations write.

    Attributes:
        window: how many rows the ring holds.
        on_host: whether the device is the host's processor.
        handles: ids of the handles of the ring's variables.
    """

    def __init__(self, *, window: int, cells: int, added: Sequence[int] = ()) -> None:
        """Create the variables; call it outside any graph.

        Args:
            window: how many rows the ring holds.
            cells: cells of a row.
            added: places of the cells that add up if a step has several optimizers.
        """
        self.window = window
        self._added = np.isin(np.arange(cells), added)
        self._ring = device_variable(tf.zeros([window, cells]), "ring")
        self._steps = device_variable(tf.zeros([window], tf.int64), "steps")
        self._count = device_variable(tf.constant(0, tf.int64), "count")
        self._incident = device_variable(tf.constant(NO_INCIDENT, tf.int64), "incident")
        self._incident_step = device_variable(tf.constant(0, tf.int64), "incident_step")
        self.on_host = "CPU" in self._ring.device
        self._counts = device_variable(tf.zeros([cells, 4], tf.int64), "counts")
        own = (self._ring, self._steps, self._count, self._incident, self._incident_step, self._counts)
        self.handles = frozenset(id(variable.handle) for variable in own)

    # In the graph of the step

    def next_row(self) -> tf.Tensor:
        """Return the number of the row to be written next, int64 scalar."""
        return self._count.read_value()

    def last_row(self) -> tf.Tensor:
        """Return the number of the row that was written last, int64 scalar."""
        return self._count.read_value() - 1

    @property
    def count_handle(self) -> tf.Tensor:
        """The handle of the variable that counts rows."""
        return self._count.handle

    def opened(self, started: tf.Tensor, step: tf.Tensor | None) -> tf.Tensor:
        """Write an empty row if the step has none yet, and return whether the step's row is finite so far.

        Args:
            started: how many rows there were when the step began, int64 scalar.
            step: the user's step, int64 scalar; ``None`` where rows are counted.
        """

        def is_finite() -> tf.Tensor:
            return tf.reduce_all(tf.math.is_finite(tf.gather(self._ring, self._place(self.last_row()))))

        def write_empty() -> tf.Tensor:
            row = tf.where(tf.constant(self._added), 0.0, ABSENT)
            with tf.control_dependencies(self.record(Entry(self.next_row(), row, step))):
                return tf.constant(True)

        return tf.cond(self._count.read_value() > started, is_finite, write_empty)

    def record(self, entry: Entry) -> list[tf.Operation]:
        """Write a row, and return the operations that write it."""
        place = self._place(entry.number)
        if entry.is_more:
            return [_scatter(self._ring, place, self._merged(tf.gather(self._ring, place), entry.row))]
        writes = [_scatter(self._ring, place, entry.row), self._count.assign_add(1, read_value=False)]
        return writes if entry.step is None else [*writes, _scatter(self._steps, place, entry.step)]

    def report(self, entry: Entry, counts: tf.Tensor) -> list[tf.Operation]:
        """Record an incident, unless the host has not read an earlier one.

        Args:
            entry: the bad row.
            counts: int64 ``[cells, 4]``.

        Returns:
            The operations that record it.
        """
        is_free = self.is_quiet()
        values = [(self._counts, counts), (self._incident, entry.number)]
        # The step is kept apart: later rows may overwrite the bad one before the host reads the ring.
        values += [] if entry.step is None else [(self._incident_step, entry.step)]
        chosen = [tf.where(is_free, value, variable.read_value()) for variable, value in values]
        with tf.control_dependencies(chosen):
            return [
                variable.assign(value, read_value=False) for (variable, _), value in zip(values, chosen, strict=True)
            ]

    def waiting(self) -> tf.Tensor:
        """Return the number of the incident's row, int64 scalar; negative if there is no incident."""
        return self._incident.read_value()

    def is_quiet(self) -> tf.Tensor:
        """Return whether there is no incident, bool scalar."""
        return tf.less(self.waiting(), 0)

    def _place(self, number: tf.Tensor) -> tf.Tensor:
        return tf.math.floormod(number, tf.constant(self.window, tf.int64))

    def _merged(self, before: tf.Tensor, more: tf.Tensor) -> tf.Tensor:
        # One optimizer measures a cell, except for the cells that add up. If several updates of a step write one
        # variable, the largest finite value stays; if several values are bad, the first stays.
        is_larger = ~tf.math.is_finite(more) | (more < ABSENT) | (before >= ABSENT) & (more > before)
        either = tf.where(tf.math.is_finite(before) & is_larger, more, before)
        return tf.where(tf.constant(self._added), before + more, either)

    # On the host

    def take_over(self, other: DeviceRing, places: Sequence[int | None]) -> None:
        """Copy the only row of another ring, when an eager step proves to have more cells than that ring.

        Args:
            other: has one row.
            places: by place in a row of this ring, the place in the other's row; ``None`` for a new cell.
        """
        row, counts = other._ring[0].numpy(), other._counts.numpy()
        self._ring[0].assign(tf.constant([ABSENT if place is None else row[place] for place in places], tf.float32))
        self._counts.assign([np.zeros(4, np.int64) if place is None else counts[place] for place in places])
        self._steps[0].assign(other._steps[0])
        self._incident.assign(other._incident)
        self._incident_step.assign(other._incident_step)
        self._count.assign(1)

    def rows_written(self) -> int:
        """Return how many rows were written; this waits for the device."""
        return int(self._count.numpy())

    def rows(self, first: int, last: int) -> tuple[Rows, IntArray]:
        """Copy rows to the host; see :meth:`Ring.rows`."""
        places = np.arange(first, last) % self.window
        return self._ring.numpy()[places], self._steps.numpy()[places]

    def incident(self) -> int | None:
        """Return the number of the incident's row; ``None`` if there is no incident."""
        number = int(self._incident.numpy())
        return None if number == NO_INCIDENT else number

    def incident_step(self) -> int:
        """Return the user's step of the incident."""
        return int(self._incident_step.numpy())

    def incident_counts(self) -> IntArray:
        """Return the exact counts of the incident's row, int64 ``[cells, 4]``."""
        counts: IntArray = self._counts.numpy()
        return counts

    def forget_incident(self) -> None:
        """Clear the incident, so that the ring can hold the next one."""
        self._incident.assign(NO_INCIDENT)


class HostRing:
    """A ring in the host's memory, for rows that a session fetched.

    Attributes:
        window: how many rows the ring holds.
        cells: cells of a row.
        on_host: always true.
    """

    on_host = True

    def __init__(self, *, window: int, cells: int) -> None:
        """Begin with no rows.

        Args:
            window: how many rows the ring holds.
            cells: cells of a row.
        """
        self.window, self.cells = window, cells
        self._rows, self._steps = np.zeros((window, cells), np.float32), np.zeros(window, np.int64)
        self._written = 0
        self._incident: tuple[int, int, IntArray] | None = None

    def add(self, row: Rows, counts: IntArray, *, step: int) -> bool:
        """Write the row of a step that ran, and return whether the row is finite.

        Args:
            row: float32 ``[cells]``.
            counts: exact counts, int64 ``[cells, 4]``; read only if the row is not finite.
            step: the user's step; any number where rows are counted.
        """
        place, is_finite = self._written % self.window, bool(np.isfinite(row).all())
        self._rows[place], self._steps[place] = row, step
        if not is_finite and self._incident is None:
            self._incident = self._written, step, counts
        self._written += 1
        return is_finite

    def rows_written(self) -> int:
        """Return how many rows were written."""
        return self._written

    def rows(self, first: int, last: int) -> tuple[Rows, IntArray]:
        """Copy rows; see :meth:`Ring.rows`."""
        places = np.arange(first, last) % self.window
        return self._rows[places], self._steps[places]

    def incident(self) -> int | None:
        """Return the number of the incident's row; ``None`` if there is no incident."""
        return None if self._incident is None else self._incident[0]

    def incident_step(self) -> int:
        """Return the user's step of the incident."""
        return 0 if self._incident is None else self._incident[1]

    def incident_counts(self) -> IntArray:
        """Return the exact counts of the incident's row, int64 ``[cells, 4]``."""
        return np.zeros((self.cells, 4), np.int64) if self._incident is None else self._incident[2]

    def forget_incident(self) -> None:
        """Clear the incident, so that the ring can hold the next one."""
        self._incident = None


def _scatter(variable: tf.Variable, place: tf.Tensor, value: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=place, updates=value)
