"""The flight recorder: a ring of rows in device memory, and the one incident that was not yet told.

Nothing here talks to the host while a step runs, so it works the same inside XLA, on an accelerator and in a loop of
many steps a call. The host reads it between steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.row.cells import ABSENT
from tb_nanwatch.watch.tf_internals import ResourceVariable

NO_INCIDENT = -1


class Entry(NamedTuple):
    """A row as it is written.

    Attributes:
        number: from :meth:`Recorder.next_row`, int64 scalar.
        row: float32 ``[cells]``.
        step: the user's step, int64 scalar; ``None`` where rows are counted.
        is_more: whether it is more of the row that was written last: of a second optimizer in the step.
    """

    number: tf.Tensor
    row: tf.Tensor
    step: tf.Tensor | None
    is_more: bool = False


class Recorder:
    """Device memory of one session.

    Attributes:
        window: rows that the ring holds.
        on_host: whether device memory is the host's, so that reading it waits for nothing.
        handles: ids of the handles of its variables.
    """

    def __init__(self, *, window: int, cells: int, added: Sequence[int] = ()) -> None:
        """Make the device's variables; call it outside any graph.

        Args:
            window: rows that the ring holds.
            cells: cells of a row.
            added: the places of cells that add up where a step has several optimizers.
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

    def next_row(self) -> tf.Tensor:
        """Return the number of the row that is written next, as a tensor of the step; int64 scalar."""
        return self._count.read_value()

    def last_row(self) -> tf.Tensor:
        """Return the number of the row that was written last, as a tensor of the step; int64 scalar."""
        return self._count.read_value() - 1

    @property
    def count_handle(self) -> tf.Tensor:
        """The handle of the variable that counts rows."""
        return self._count.handle

    def opened(self, started: tf.Tensor, step: tf.Tensor | None) -> tf.Tensor:
        """Begin the row of a step that has none yet, and return whether all that is in the row is finite.

        Args:
            started: how many rows there were as the step began, int64 scalar.
            step: the user's step, int64 scalar; ``None`` where rows are counted.
        """

        def so_far() -> tf.Tensor:
            place = tf.math.floormod(self.last_row(), tf.constant(self.window, tf.int64))
            return tf.reduce_all(tf.math.is_finite(tf.gather(self._ring, place)))

        def empty() -> tf.Tensor:
            row = tf.where(tf.constant(self._added), 0.0, ABSENT)
            with tf.control_dependencies(self.record(Entry(self.next_row(), row, step))):
                return tf.constant(True)

        return tf.cond(self._count.read_value() > started, so_far, empty)

    def record(self, entry: Entry) -> list[tf.Operation]:
        """Write a row and return what has to run for it to be there."""
        place = tf.math.floormod(entry.number, tf.constant(self.window, tf.int64))
        if entry.is_more:
            return [_scatter(self._ring, place, self._together(tf.gather(self._ring, place), entry.row))]
        written = [_scatter(self._ring, place, entry.row), self._count.assign_add(1, read_value=False)]
        return written if entry.step is None else [*written, _scatter(self._steps, place, entry.step)]

    def report(self, entry: Entry, counts: tf.Tensor) -> list[tf.Operation]:
        """Leave an incident for the host, unless an earlier one still waits there.

        Args:
            entry: the bad row.
            counts: int64 ``[cells, 4]``.
        """
        free = self.is_quiet()
        told = [(self._counts, counts), (self._incident, entry.number)]
        # The ring may have come round before the host looks.
        told += [] if entry.step is None else [(self._incident_step, entry.step)]
        values = [tf.where(free, value, variable.read_value()) for variable, value in told]
        with tf.control_dependencies(values):
            return [variable.assign(value, read_value=False) for (variable, _), value in zip(told, values, strict=True)]

    def _together(self, before: tf.Tensor, more: tf.Tensor) -> tf.Tensor:
        # Each cell was measured by one of the optimizers, but for what adds up; of a variable that is updated several
        # times in a step the largest is kept, and of all that are bad the first.
        is_larger = ~tf.math.is_finite(more) | (more < ABSENT) | (before >= ABSENT) & (more > before)
        either = tf.where(tf.math.is_finite(before) & is_larger, more, before)
        return tf.where(tf.constant(self._added), before + more, either)

    def take_over(self, other: Recorder, places: Sequence[int | None]) -> None:
        """Begin with the first row of another recorder, of an eager step that has more to measure than was known.

        Args:
            other: has written one row.
            places: by place in a row of this one, the place in a row of the other; ``None`` for what that lacks.
        """
        row, counts = other._ring[0].numpy(), other._counts.numpy()
        self._ring[0].assign(tf.constant([ABSENT if place is None else row[place] for place in places], tf.float32))
        self._counts.assign([np.zeros(4, np.int64) if place is None else counts[place] for place in places])
        self._steps[0].assign(other._steps[0])
        self._incident.assign(other._incident)
        self._incident_step.assign(other._incident_step)
        self._count.assign(1)

    def waiting(self) -> tf.Tensor:
        """Return the number of the bad row that waits for the host, as a tensor; negative if there is none."""
        return self._incident.read_value()

    def is_quiet(self) -> tf.Tensor:
        """Return whether no incident waits for the host, as a tensor of the step; bool scalar."""
        return tf.less(self.waiting(), 0)

    def rows_written(self) -> int:
        """Return how many rows were written since the session began; waits for the device."""
        return int(self._count.numpy())

    def incident(self) -> int | None:
        """Return the number of the bad row that waits for the host; ``None`` if there is none."""
        number = int(self._incident.numpy())
        return None if number == NO_INCIDENT else number

    def incident_step(self) -> int:
        """Return the user's step of the incident."""
        return int(self._incident_step.numpy())

    def incident_counts(self) -> IntArray:
        """Return the counts of the incident's row, int64 ``[cells, 4]``."""
        counts: IntArray = self._counts.numpy()
        return counts

    def forget_incident(self) -> None:
        """Make room for the next incident."""
        self._incident.assign(NO_INCIDENT)

    def rows(self, first: int, last: int) -> tuple[npt.NDArray[np.float32], IntArray]:
        """Copy rows to the host.

        Args:
            first: number of the first row; it must still be in the ring.
            last: number of the last row, exclusive.

        Returns:
            float32 ``[n, cells]`` and the user's steps, int64 ``[n]``.
        """
        places = np.arange(first, last) % self.window
        return self._ring.numpy()[places], self._steps.numpy()[places]

    def is_bad(self, number: int) -> bool:
        """Return whether a row that is still in the ring holds anything non-finite; no row is before the first."""
        return number >= 0 and not bool(np.isfinite(self._ring[number % self.window].numpy()).all())


def device_variable(initial: tf.Tensor, name: str, *, shape: tf.TensorShape | None = None) -> tf.Variable:
    """Return a variable of the watch's own."""
    # tf.Variable would tell the tf.function that is being traced, and it would trace the user's step a second time.
    return ResourceVariable(initial, trainable=False, name=f"nanwatch/{name}", shape=shape)


def _scatter(variable: tf.Variable, place: tf.Tensor, value: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=place, updates=value)
