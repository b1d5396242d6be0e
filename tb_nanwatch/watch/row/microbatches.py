"""Micro-batches: what is kept, in device memory, of the gradients that a step accumulates before its one update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.graphs import rarely
from tb_nanwatch.watch.record.ring import device_variable
from tb_nanwatch.watch.row import measure
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.measure import Gradient

NONE_BAD = -1


class _Place(NamedTuple):
    """Where a measured part of a step stands since the last update; all int64 scalars.

    Attributes:
        number: of its micro-batch.
        call: how many parts were measured before it.
        bad: the number of the first micro-batch that was bad before it, or ``NONE_BAD``.
        bad_call: of the part that was bad in that one.
    """

    number: tf.Tensor
    call: tf.Tensor
    bad: tf.Tensor
    bad_call: tf.Tensor


class Accumulation:
    """The micro-batches since the last update: how many, how large, and which was the first that was bad.

    A step may measure the gradients of its variables together or in parts, such as first the actor's and then the
    critic's: a variable that was not yet measured in a micro-batch belongs to that micro-batch still. So the number of
    a part is how often its variables were measured before.

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
        self._place = device_variable(tf.constant([0, NONE_BAD, NONE_BAD], tf.int64), "microbatch_place")
        self._is_over = device_variable(tf.constant(True), "accumulation_is_over")
        own = (self._squares, self._numbers, self._counts, self._place, self._is_over)
        self.handles = frozenset(id(variable.handle) for variable in own)

    def widen(self, columns: int) -> None:
        """Make room for more variables, outside any graph: what was traced for fewer goes on writing to its own."""
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
        """Measure one micro-batch or a part of it, in the step that is being traced or run.

        Args:
            gradients: of some variables.
            columns: of these variables, in the same order.
            loss: scalar or one for each sample; ``None`` if not given.
            restore_if: restores what the forward pass changed if a bool scalar is true.

        Returns:
            Whether it is the first since the last update, a bool scalar.
        """
        fresh, own = self._is_over.read_value(), tf.constant(columns, tf.int64)
        numbers = _unless(fresh, self._numbers.read_value())
        start = tf.constant([0, NONE_BAD, NONE_BAD], tf.int64)
        call, bad, bad_call = tf.unstack(tf.where(fresh, start, self._place.read_value()))
        place = _Place(tf.reduce_max(tf.gather(numbers, own)), call, bad, bad_call)
        cells = [measure.half_sum_of_squares(gradient) for gradient in gradients]
        given = tf.constant(0.0) if loss is None else measure.loss_cell(loss)
        is_finite = tf.reduce_all(tf.math.is_finite(tf.stack([*cells, given])))
        tensors, rows = [loss, *gradients], tf.concat([[0], own + 1], axis=0)
        bad, bad_call = rarely(
            is_finite, lambda: (bad, bad_call), lambda: self._look_closer(tensors, rows, place, restore_if=restore_if)
        )
        squares = _unless(fresh, self._squares.read_value())
        more = tf.maximum(tf.stack(cells), 0.0)
        self._squares.assign(tf.tensor_scatter_nd_add(squares, own[:, None], more), read_value=False)
        counted = tf.fill([len(columns)], place.number + 1)
        self._numbers.assign(tf.tensor_scatter_nd_update(numbers, own[:, None], counted), read_value=False)
        self._place.assign(tf.stack([call + 1, bad, bad_call]), read_value=False)
        self._is_over.assign(False, read_value=False)
        return fresh

    def cells(self, columns: int) -> tf.Tensor:
        """Return the cells of the step, float32 ``[columns + 3]``; the next micro-batch begins anew.

        They are the mean over micro-batches of half the sum of squares of each gradient (left out where it is not
        finite: it is no news), the number of micro-batches, the number of the first that was bad, and NaN if one was.

        Args:
            columns: how many variables are watched.
        """
        fresh, numbers = self._is_over.read_value(), tf.ensure_shape(self._numbers.read_value(), [columns])
        squares = tf.ensure_shape(self._squares.read_value(), [columns])
        mean = squares / tf.cast(tf.maximum(numbers, 1), tf.float32)
        kept = tf.where(tf.math.is_finite(mean) & ~fresh & (numbers > 0), mean, ABSENT)
        both = tf.stack([tf.reduce_max(numbers), self._place.read_value()[1]])
        both = tf.where(fresh, tf.constant([0, NONE_BAD], tf.int64), both)
        with tf.control_dependencies([kept, both]):
            self._is_over.assign(True, read_value=False)
        told = tf.cast(both, tf.float32)
        mark = tf.where(told[1:] == NONE_BAD, 0.0, tf.constant(float("nan")))
        return tf.concat([kept, told, mark], axis=0)

    def counts(self) -> IntArray:
        """Return the exact counts of the first bad micro-batch: a row for each gradient, and the loss's."""
        counts: IntArray = np.roll(self._counts.numpy(), -1, axis=0)
        return counts

    def pending(self) -> int:
        """Return the number of the first bad micro-batch whose update has not come; ``NONE_BAD`` if all are finite."""
        return NONE_BAD if bool(self._is_over.numpy()) else int(self._place.numpy()[1])

    def bad_call(self) -> int:
        """Return how many parts were measured, since the update before, until the first bad one; negative for none."""
        return int(self._place.numpy()[2])

    def _look_closer(
        self, tensors: Sequence[Gradient], rows: tf.Tensor, place: _Place, *, restore_if: Callable[[tf.Tensor], None]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        counts = tf.stack([measure.count(tensor) for tensor in tensors])
        is_bad = tf.reduce_any(counts[:, 1:] > 0)
        restore_if(is_bad)
        is_first = is_bad & (place.bad == NONE_BAD)
        before = self._counts.read_value()
        fresh = tf.tensor_scatter_nd_update(tf.zeros_like(before), rows[:, None], counts)
        told = self._counts.assign(tf.where(is_first, fresh, before), read_value=False)
        with tf.control_dependencies([op for op in [told] if op is not None]):
            bad = tf.where(is_first, place.number, place.bad)
            return bad, tf.where(is_first, place.call, place.bad_call)


def _growing(initial: tf.Tensor, name: str) -> tf.Variable:
    return device_variable(initial, name, shape=tf.TensorShape([None, *initial.shape[1:]]))


def _unless(fresh: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.where(fresh, tf.zeros_like(values), values)
