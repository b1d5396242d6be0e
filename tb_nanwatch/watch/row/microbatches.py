"""Micro-batches: what a watch keeps of the gradients that a step accumulates before its one update.

A store keeps how many micro-batches came since the last update, how large their gradients were, and which was the first
bad one. For the row of the update it gives ``V + 3`` cells: for each variable the mean over micro-batches of half its
gradient's sum of squares, then the number of micro-batches, the number of the first bad one, and a mark that is NaN if
there is one. The mark makes the row of the update non-finite although the total may be finite.

Two stores do this: in device memory for steps of TensorFlow 2, on the host for the runs of a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.graphs import rarely
from tb_nanwatch.watch.row.encoding import ABSENT, Rows, half_squares
from tb_nanwatch.watch.row.measure import Gradient, count, half_sum_of_squares, loss_cell
from tb_nanwatch.watch.variables import device_variable

NONE_BAD: Final = -1
"""The number of the first bad micro-batch where all are finite."""
_START: Final = (0, NONE_BAD, NONE_BAD)


class MicrobatchStore(Protocol):
    """The micro-batches of a step, wherever they are kept."""

    def counts(self) -> IntArray:
        """Return the exact counts of the first bad micro-batch: one row for each gradient, then the loss's."""

    def pending(self) -> int:
        """Return the number of the first bad micro-batch whose update did not run; ``NONE_BAD`` if all are finite."""


def absent_cells(columns: int) -> Rows:
    """Return the cells of an update without micro-batches, float32 ``[columns + 3]``."""
    return np.array([*[ABSENT] * columns, 0, NONE_BAD, 0], np.float32)


class _Part(NamedTuple):
    """A part of a step that is measured by itself; its fields are int64 scalars.

    Attributes:
        number: of its micro-batch.
        call: how many parts were measured before it since the last update.
        bad: the number of the first bad micro-batch before it, or ``NONE_BAD``.
        bad_call: the number of the bad part in that micro-batch.
    """

    number: tf.Tensor
    call: tf.Tensor
    bad: tf.Tensor
    bad_call: tf.Tensor


class DeviceMicrobatches:
    """A store in device memory.

    A step may measure the gradients of its variables together or in parts, such as first the actor's and then the
    critic's. A variable that a micro-batch has not measured yet still belongs to that micro-batch. So the number of a
    part is how often its variables were measured before.

    Attributes:
        handles: ids of the handles of its variables.
    """

    def __init__(self, *, columns: int) -> None:
        """Make the device's variables; call it outside any graph.

        Args:
            columns: how many variables are watched.
        """
        self._squares = _growing(tf.zeros([columns]), "microbatch_squares")
        self._numbers = _growing(tf.zeros([columns], tf.int64), "microbatches")
        self._counts = _growing(tf.zeros([1 + columns, 4], tf.int64), "microbatch_counts")
        self._progress = device_variable(tf.constant(_START, tf.int64), "microbatch_place")
        self._is_over = device_variable(tf.constant(True), "accumulation_is_over")
        own = (self._squares, self._numbers, self._counts, self._progress, self._is_over)
        self.handles = frozenset(id(variable.handle) for variable in own)

    def widen(self, columns: int) -> None:
        """Make room for more variables; call it outside any graph. A graph for fewer variables keeps its own places."""
        more = columns - int(tf.size(self._squares))
        for variable in (self._squares, self._numbers, self._counts) if more > 0 else ():
            padding = [[0, more], *([[0, 0]] * (variable.shape.rank - 1))]
            variable.assign(tf.pad(variable.read_value(), padding))

    def add(
        self,
        gradients: Sequence[Gradient],
        columns: Sequence[int],
        *,
        loss: tf.Tensor | None,
        restore_if: Callable[[tf.Tensor], None] = lambda _: None,
    ) -> tf.Tensor:
        """Measure one micro-batch or a part of it, in the step that is traced or run.

        Args:
            gradients: of some variables.
            columns: of these variables, in the same order.
            loss: scalar or one value for each sample; ``None`` if not given.
            restore_if: restores what its forward pass changed if a bool scalar is true.

        Returns:
            Whether it is the first since the last update, a bool scalar.
        """
        is_first, own = self._is_over.read_value(), tf.constant(columns, tf.int64)
        numbers = _zero_if(is_first, self._numbers.read_value())
        start = tf.constant(_START, tf.int64)
        call, bad, bad_call = tf.unstack(tf.where(is_first, start, self._progress.read_value()))
        part = _Part(tf.reduce_max(tf.gather(numbers, own)), call, bad, bad_call)
        cells = [half_sum_of_squares(gradient) for gradient in gradients]
        given = tf.constant(0.0) if loss is None else loss_cell(loss)
        is_finite = tf.reduce_all(tf.math.is_finite(tf.stack([*cells, given])))
        tensors, rows = [loss, *gradients], tf.concat([[0], own + 1], axis=0)
        bad, bad_call = rarely(
            is_finite, lambda: (bad, bad_call), lambda: self._count(tensors, rows, part, restore_if=restore_if)
        )
        squares = _zero_if(is_first, self._squares.read_value())
        more = tf.maximum(tf.stack(cells), 0.0)
        self._squares.assign(tf.tensor_scatter_nd_add(squares, own[:, None], more), read_value=False)
        counted = tf.fill([len(columns)], part.number + 1)
        self._numbers.assign(tf.tensor_scatter_nd_update(numbers, own[:, None], counted), read_value=False)
        self._progress.assign(tf.stack([call + 1, bad, bad_call]), read_value=False)
        self._is_over.assign(False, read_value=False)
        return is_first

    def cells(self, columns: int) -> tf.Tensor:
        """Return the cells of the update, float32 ``[columns + 3]``; the next micro-batch starts a new sum.

        The mean of a gradient that is not finite is left out: the row of the update already says so.

        Args:
            columns: how many variables are watched.
        """
        is_empty, numbers = self._is_over.read_value(), tf.ensure_shape(self._numbers.read_value(), [columns])
        squares = tf.ensure_shape(self._squares.read_value(), [columns])
        mean = squares / tf.cast(tf.maximum(numbers, 1), tf.float32)
        means = tf.where(tf.math.is_finite(mean) & ~is_empty & (numbers > 0), mean, ABSENT)
        both = tf.stack([tf.reduce_max(numbers), self._progress.read_value()[1]])
        both = tf.where(is_empty, tf.constant([0, NONE_BAD], tf.int64), both)
        with tf.control_dependencies([means, both]):
            self._is_over.assign(True, read_value=False)
        count_and_bad = tf.cast(both, tf.float32)
        mark = tf.where(count_and_bad[1:] == NONE_BAD, 0.0, tf.constant(float("nan")))
        return tf.concat([means, count_and_bad, mark], axis=0)

    def counts(self) -> IntArray:
        """Return the exact counts of the first bad micro-batch: one row for each gradient, then the loss's."""
        counts: IntArray = np.roll(self._counts.numpy(), -1, axis=0)
        return counts

    def pending(self) -> int:
        """Return the number of the first bad micro-batch whose update did not run; ``NONE_BAD`` if all are finite."""
        return NONE_BAD if bool(self._is_over.numpy()) else int(self._progress.numpy()[1])

    def bad_call(self) -> int:
        """Return how many parts were measured since the last update before the first bad part; negative for none."""
        return int(self._progress.numpy()[2])

    def _count(
        self, tensors: Sequence[Gradient], rows: tf.Tensor, part: _Part, *, restore_if: Callable[[tf.Tensor], None]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Count what is non-finite, restore state if anything is, and return ``bad`` and ``bad_call`` of a part."""
        counts = tf.stack([count(tensor) for tensor in tensors])
        is_bad = tf.reduce_any(counts[:, 1:] > 0)
        restore_if(is_bad)
        is_first_bad = is_bad & (part.bad == NONE_BAD)
        before = self._counts.read_value()
        own = tf.tensor_scatter_nd_update(tf.zeros_like(before), rows[:, None], counts)
        assigned = self._counts.assign(tf.where(is_first_bad, own, before), read_value=False)
        with tf.control_dependencies([op for op in [assigned] if op is not None]):
            bad = tf.where(is_first_bad, part.number, part.bad)
            return bad, tf.where(is_first_bad, part.call, part.bad_call)


class HostMicrobatches:
    """A store on the host, which adds each micro-batch after the run that computed it.

    Attributes:
        columns: how many variables are watched.
        bad_call: the call of the first bad micro-batch; ``None`` if all are finite.
    """

    def __init__(self, *, columns: int) -> None:
        """Begin without micro-batches.

        Args:
            columns: how many variables are watched.
        """
        self.columns = columns
        self._counts = np.zeros((columns + 1, 4), np.int64)
        self._squares = np.zeros(columns)
        self._number, self._bad, self._is_over = 0, NONE_BAD, False
        self.bad_call: Any = None

    @property
    def number(self) -> int:
        """How many micro-batches came since the last update."""
        return 0 if self._is_over else self._number

    def add(self, row: Rows, counts: IntArray, *, call: Callable[[], Any]) -> bool:
        """Add a micro-batch.

        Args:
            row: cells of its gradients by column, and of its loss if it has one.
            counts: exact counts of the same, int64 ``[cells, 4]``; no rows if all is finite.
            call: returns its call, asked for if it is the first bad one.

        Returns:
            Whether it is finite.
        """
        if self._is_over:
            self._squares[:] = 0.0
            self._number, self._bad, self._is_over, self.bad_call = 0, NONE_BAD, False, None
        is_finite = bool(np.isfinite(row).all())
        if not is_finite and self._bad == NONE_BAD:
            self._bad, self.bad_call = self._number, call()
            self._counts[:] = 0
            self._counts[: len(counts)] = counts
        self._squares += half_squares(row[: self.columns])
        self._number += 1
        return is_finite

    def cells(self) -> npt.NDArray[np.float32]:
        """Return the cells of the update, float32 ``[columns + 3]``."""
        if self.number == 0:
            return absent_cells(self.columns)
        means = self._squares / self._number
        means = np.where(means <= np.finfo(np.float32).max, means, ABSENT)
        mark = 0.0 if self._bad == NONE_BAD else np.nan
        return np.array([*means, self._number, self._bad, mark], np.float32)

    def end(self) -> None:
        """Mark the end of a step: its update ran, and the next micro-batch starts a new sum."""
        self._is_over = True

    def counts(self) -> IntArray:
        """Return the exact counts of the first bad micro-batch: one row for each gradient, then the loss's."""
        return self._counts

    def pending(self) -> int:
        """Return the number of the first bad micro-batch whose update did not run; ``NONE_BAD`` if all are finite."""
        return NONE_BAD if self._is_over else self._bad


def _growing(initial: tf.Tensor, name: str) -> tf.Variable:
    return device_variable(initial, name, shape=tf.TensorShape([None, *initial.shape[1:]]))


def _zero_if(condition: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.where(condition, tf.zeros_like(values), values)
