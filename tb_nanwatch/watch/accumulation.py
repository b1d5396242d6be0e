"""Micro-batches: what is kept, in device memory, of the gradients that a step accumulates before its one update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch import measure
from tb_nanwatch.watch.freeze import Kept, put_back_if
from tb_nanwatch.watch.guard import rarely
from tb_nanwatch.watch.layout import ABSENT
from tb_nanwatch.watch.measure import Gradient
from tb_nanwatch.watch.recorder import device_variable

NONE_BAD = -1


class _Place(NamedTuple):
    """The number of a micro-batch, and that of the first bad one before it."""

    number: tf.Tensor
    bad: tf.Tensor


class Accumulation:
    """The micro-batches since the last update: how many, how large, and which was the first that was bad.

    Attributes:
        handles: ids of the handles of its variables.
    """

    def __init__(self, *, columns: int) -> None:
        """Make the device's variables; call it outside any graph.

        Args:
            columns: how many variables are watched.
        """
        self._squares = device_variable(tf.zeros([columns]), "microbatch_squares")
        self._count = device_variable(tf.constant(0, tf.int64), "microbatches")
        self._bad = device_variable(tf.constant(NONE_BAD, tf.int64), "bad_microbatch")
        self._counts = device_variable(tf.zeros([columns + 1, 4], tf.int64), "microbatch_counts")
        self._is_over = device_variable(tf.constant(False), "accumulation_is_over")
        own = (self._squares, self._count, self._bad, self._counts, self._is_over)
        self.handles = frozenset(id(variable.handle) for variable in own)

    def add(self, gradients: Sequence[Gradient], loss: tf.Tensor | None, kept: Sequence[Kept] = ()) -> None:
        """Measure one micro-batch, as a part of the step that is being traced or run.

        Args:
            gradients: by column.
            loss: scalar or one for each sample; ``None`` if not given.
            kept: what its forward pass changed, to be put back if it is bad.
        """
        fresh = self._is_over.read_value()
        number = tf.where(fresh, tf.constant(0, tf.int64), self._count.read_value())
        bad = tf.where(fresh, tf.constant(NONE_BAD, tf.int64), self._bad.read_value())
        cells = [measure.half_sum_of_squares(gradient) for gradient in gradients]
        given = tf.constant(0.0) if loss is None else measure.loss_cell(loss)
        is_finite = tf.reduce_all(tf.math.is_finite(tf.stack([*cells, given])))
        tensors = [*gradients, loss]
        (first,) = rarely(is_finite, lambda: [bad], lambda: [self._look_closer(tensors, _Place(number, bad), kept)])
        squares = tf.maximum(tf.stack(cells), 0.0)
        before = tf.where(fresh, tf.zeros_like(squares), self._squares.read_value())
        self._squares.assign(before + squares, read_value=False)
        self._count.assign(number + 1, read_value=False)
        self._bad.assign(first, read_value=False)
        self._is_over.assign(False, read_value=False)

    def cells(self) -> tf.Tensor:
        """Return the cells of the step, float32 ``[columns + 3]``; the next micro-batch begins anew.

        They are the mean over micro-batches of half the sum of squares of each gradient (left out where it is not
        finite: it is no news), the number of micro-batches, the number of the first that was bad, and NaN if one was.
        """
        fresh, count = self._is_over.read_value(), self._count.read_value()
        mean = self._squares.read_value() / tf.cast(tf.maximum(count, 1), tf.float32)
        kept = tf.where(tf.math.is_finite(mean) & ~fresh, mean, ABSENT)
        numbers = tf.where(fresh, tf.constant([0, NONE_BAD], tf.int64), tf.stack([count, self._bad.read_value()]))
        with tf.control_dependencies([kept, numbers]):
            self._is_over.assign(True, read_value=False)
        told = tf.cast(numbers, tf.float32)
        mark = tf.where(told[1:] == NONE_BAD, 0.0, tf.constant(float("nan")))
        return tf.concat([kept, told, mark], axis=0)

    def counts(self) -> IntArray:
        """Return the exact counts of the first bad micro-batch: a row for each gradient, and the loss's."""
        counts: IntArray = self._counts.numpy()
        return counts

    def _look_closer(self, tensors: Sequence[Gradient], place: _Place, kept: Sequence[Kept]) -> tf.Tensor:
        number, bad = place
        counts = tf.stack([measure.count(tensor) for tensor in tensors])
        is_bad = tf.reduce_any(counts[:, 1:] > 0)
        put_back_if(is_bad, kept)
        is_first = is_bad & (bad == NONE_BAD)
        told = self._counts.assign(tf.where(is_first, counts, self._counts.read_value()), read_value=False)
        with tf.control_dependencies([op for op in [told] if op is not None]):
            return tf.where(is_first, number, bad)
