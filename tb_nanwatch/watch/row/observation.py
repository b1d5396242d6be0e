"""One step's tensors, and the row they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf

from tb_nanwatch.watch.row import measure
from tb_nanwatch.watch.row.cells import ABSENT
from tb_nanwatch.watch.row.clipping import Factor, scale_factors
from tb_nanwatch.watch.row.measure import Begun, Gradient, Measured, Seldom
from tb_nanwatch.watch.row.scalars import UpdateScalars


@dataclass(frozen=True, eq=False)
class Observation:
    """What is seen of one step, in the order of :class:`~tb_nanwatch.watch.row.cells.Layout`.

    Attributes:
        raw: gradients before clipping, ``[V]``.
        clipped: gradients after clipping, ``[V]``; ``None`` where nothing clips.
        weights: the variables as tensors, as the step began, ``[V]``; ``None`` for one that was measured already.
        tensors: watched tensors, then what was written to layers' statistics.
        loss: scalar, or one for each sample; ``None`` if the step does not give it.
        is_unscaled: whether the gradients were given without their scale.
        microbatches: the cells of an accumulated step's micro-batches; ``None`` where it has none.
        scalars: that the update multiplies by, see :class:`UpdateScalars`; ``None`` where
            they are not known before it.
        scale: of the loss, if it is scaled; the gradients are scaled by it too, and measured as if they were not.
    """

    raw: Sequence[Gradient]
    clipped: Sequence[Gradient] | None
    weights: Sequence[tf.Tensor | Begun | None]
    tensors: Sequence[tf.Tensor | Seldom | Begun | None]
    loss: tf.Tensor | None
    scale: tf.Tensor | None = None
    is_unscaled: bool = False
    microbatches: tf.Tensor | None = None
    scalars: UpdateScalars | None = None

    @cached_property
    def factors(self) -> list[Factor] | None:
        """What a norm clip scales by; ``None`` if nothing clips, or clipping is something else, or not known."""
        return None if self.clipped is None else scale_factors(self.raw, self.clipped)

    def row(self) -> tf.Tensor:
        """Return the row, float32 ``[cells]``: finite if and only if all was finite and no square overflowed."""
        rest = [measure.half_sum_of_squares(tensor) for tensor in (*self.weights, *self.tensors)]
        rest += [
            *self._microbatch_cells(),
            *self._scalar_cells(),
            *self._scale_cells(),
            *([] if self.loss is None else [measure.loss_cell(self.loss)]),
        ]
        if self.factors is None:
            gradients = [measure.half_sum_of_squares(gradient) for gradient in (*self.raw, *(self.clipped or ()))]
            if self.scale is None:
                return tf.stack([*gradients, *rest])
            return tf.concat([self._unscaled(tf.stack(gradients)), tf.stack(rest)], axis=0)
        before = self._unscaled(measure.half_sums_of_squares(self.raw))
        after = self._kept_absent(measure.clipped_cells(before, self.factors))
        return tf.concat([before, after, tf.stack(rest)], axis=0)

    def counts(self) -> tf.Tensor:
        """Return the exact counts of every cell's tensor, int64 ``[cells, 4]``: size, NaN, +Inf, -Inf."""
        # What is no origin is counted as nothing.
        nothing = [tf.zeros([4], tf.int64)]
        numbers = [*(measure.count(cell) for cell in self._scalar_cells()), *(nothing * len(self._scale_cells()))]
        loss = [] if self.loss is None else [measure.count(self.loss)]
        microbatches = nothing * len(self._microbatch_cells())
        return tf.stack([*(counts for counts, _ in self._closely), *microbatches, *numbers, *loss])

    def is_overflow(self, counts: tf.Tensor) -> tf.Tensor:
        """Return whether nothing was bad but scaled gradients, as is to be expected of a loss scale now and then.

        Where the scale is 1 no smaller one would have kept the gradients finite.

        Args:
            counts: from :meth:`counts`.
        """
        if self.scale is None:
            return tf.constant(False)
        bad = tf.reduce_sum(counts[:, 1:], axis=1)
        gradients = len(self.raw) + len(self.clipped or ())
        # An update that is left out multiplies by nothing.
        bad = tf.where(self._is_of_scalars(bad), tf.zeros_like(bad), bad)
        others, own = tf.reduce_sum(bad[gradients:]), tf.reduce_sum(bad[:gradients])
        # Programs of TensorFlow 1 turn off that == compares the values of tensors.
        return tf.equal(others, 0) & (own > 0) & (self.scale > 1)

    def overflown_row(self, row: tf.Tensor) -> tf.Tensor:
        """Return the row of a step whose gradients overflowed for their scale: without them.

        Args:
            row: from :meth:`settled_row`.
        """
        gradients = len(self.raw) + len(self.clipped or ())
        scale = tf.equal(tf.range(tf.size(row)), tf.size(row) - (1 if self.loss is None else 2))
        absent = (tf.range(tf.size(row)) < gradients) | self._is_of_scalars(row)
        return tf.where(absent, ABSENT, tf.where(scale, -row, row))

    def settled_row(self) -> tf.Tensor:
        """Return the row with the counts known: not finite only where a tensor is not.

        Call it in the branch that :meth:`counts` is called in, since both rest on the same look at each tensor.
        """
        cells = [cell for _, cell in self._closely]
        if self.scale is not None:
            gradients = len(self.raw) + len(self.clipped or ())
            cells = [*tf.unstack(self._unscaled(tf.stack(cells[:gradients]))), *cells[gradients:]]
        loss = [] if self.loss is None else [measure.settled_loss(self.loss)]
        numbers = [*self._microbatch_cells(), *self._scalar_cells(), *self._scale_cells()]
        return tf.stack([*cells, *numbers, *loss])

    @cached_property
    def _closely(self) -> list[tuple[tf.Tensor, tf.Tensor]]:
        tensors: list[Measured] = [*self.raw, *self._clipped_again(), *self.weights, *self.tensors]
        seen = [measure.closely(tensor) for tensor in tensors]
        sampled = [(place, one) for place, one in enumerate(tensors) if isinstance(one, Seldom)]
        is_harmless = self._has_finite_results([counts for counts, _ in seen]) if sampled else None
        for place, one in sampled:
            seen[place] = measure.without_meant(one, seen[place], is_harmless=is_harmless)
        return seen

    def _has_finite_results(self, counts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return whether the loss is finite, and the gradients are or may have overflowed for their scale."""
        gradients = counts[: len(self.raw) + len(self.clipped or ())]
        is_finite = tf.equal(tf.add_n([tf.reduce_sum(of_one[1:]) for of_one in gradients]), 0)
        is_finite = is_finite if self.scale is None else is_finite | (self.scale > 1)
        return is_finite if self.loss is None else is_finite & tf.reduce_all(tf.math.is_finite(self.loss))

    def _unscaled(self, cells: tf.Tensor) -> tf.Tensor:
        return cells if self.scale is None or self.is_unscaled else measure.unscaled_cells(cells, self.scale)

    def _microbatch_cells(self) -> list[tf.Tensor]:
        return [] if self.microbatches is None else tf.unstack(self.microbatches)

    def _scalar_cells(self) -> list[tf.Tensor]:
        return [] if self.scalars is None else [self.scalars.cell]

    def _is_of_scalars(self, cells: tf.Tensor) -> tf.Tensor:
        """Return of each cell whether it is that of the scalars; bool ``[cells]``."""
        if self.scalars is None:
            return tf.zeros_like(cells, tf.bool)
        before = [*self.raw, *(self.clipped or ()), *self.weights, *self.tensors, *self._microbatch_cells()]
        return tf.equal(tf.range(tf.size(cells)), len(before))

    def _scale_cells(self) -> list[tf.Tensor]:
        return [] if self.scale is None else [tf.cast(self.scale, tf.float32)]

    def _clipped_again(self) -> Sequence[Gradient]:
        # A branch that read the clipped gradients themselves would keep them from being computed in place.
        if self.clipped is None or self.factors is None:
            return self.clipped or ()
        return [measure.scaled(gradient, self.factors, column) for column, gradient in enumerate(self.raw)]

    def _kept_absent(self, cells: tf.Tensor) -> tf.Tensor:
        absent = [gradient is None for gradient in self.raw]
        return tf.where(tf.constant(absent), ABSENT, cells) if any(absent) else cells
