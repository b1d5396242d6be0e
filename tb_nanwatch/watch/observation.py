"""One step's tensors, and the row they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf

from tb_nanwatch.watch import measure
from tb_nanwatch.watch.graph import Factor, scale_factors
from tb_nanwatch.watch.layout import ABSENT
from tb_nanwatch.watch.measure import Gradient


@dataclass(frozen=True, eq=False)
class Observation:
    """What is seen of one step, in the order of :class:`~tb_nanwatch.watch.layout.Layout`.

    Attributes:
        raw: gradients before clipping, ``[V]``.
        clipped: gradients after clipping, ``[V]``; ``None`` where nothing clips.
        weights: the variables as tensors, as the step began, ``[V]``.
        tensors: watched tensors, then what was written to layers' statistics.
        loss: scalar, or one for each sample; ``None`` if the step does not give it.
    """

    raw: Sequence[Gradient]
    clipped: Sequence[Gradient] | None
    weights: Sequence[tf.Tensor]
    tensors: Sequence[tf.Tensor]
    loss: tf.Tensor | None

    @cached_property
    def factors(self) -> list[Factor] | None:
        """What a norm clip scales by; ``None`` if nothing clips, or clipping is something else, or not known."""
        return None if self.clipped is None else scale_factors(self.raw, self.clipped)

    def row(self) -> tf.Tensor:
        """Return the row, float32 ``[cells]``: finite if and only if all was finite and no square overflowed."""
        raw = [measure.half_sum_of_squares(gradient) for gradient in self.raw]
        rest = [measure.half_sum_of_squares(tensor) for tensor in (*self.weights, *self.tensors)]
        rest += [] if self.loss is None else [measure.loss_cell(self.loss)]
        if self.factors is None:
            return tf.stack([*raw, *(measure.half_sum_of_squares(gradient) for gradient in self.clipped or ()), *rest])
        before = tf.stack(raw)
        after = self._kept_absent(measure.clipped_cells(before, self.factors))
        return tf.concat([before, after, tf.stack(rest)], axis=0)

    def counts(self) -> tf.Tensor:
        """Return the exact counts of every cell's tensor, int64 ``[cells, 4]``: size, NaN, +Inf, -Inf."""
        return tf.stack([measure.count(tensor) for tensor in self._all()])

    def settled_row(self, counts: tf.Tensor) -> tf.Tensor:
        """Return the row once the counts are known: not finite only where a tensor is not."""
        tensors = self._all() if self.loss is None else self._all()[:-1]
        cells = [measure.settled_cell(tensor, counts[place]) for place, tensor in enumerate(tensors)]
        return tf.stack(cells if self.loss is None else [*cells, measure.settled_loss(self.loss)])

    def _all(self) -> list[Gradient]:
        loss = [] if self.loss is None else [self.loss]
        return [*self.raw, *self._clipped_again(), *self.weights, *self.tensors, *loss]

    def _clipped_again(self) -> Sequence[Gradient]:
        # A branch that read the clipped gradients themselves would keep them from being computed in place.
        if self.clipped is None or self.factors is None:
            return self.clipped or ()
        return [measure.scaled(gradient, self.factors, column) for column, gradient in enumerate(self.raw)]

    def _kept_absent(self, cells: tf.Tensor) -> tf.Tensor:
        absent = [gradient is None for gradient in self.raw]
        return tf.where(tf.constant(absent), ABSENT, cells) if any(absent) else cells
