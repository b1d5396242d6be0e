"""One observed step: the operations that turn its tensors into a row, and resolve a row that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.row import cells as table
from tb_nanwatch.watch.row.cells import CellKind, StepTensors
from tb_nanwatch.watch.row.clipping import Factor, clipped_cells, keep_absent, scale_factors, scaled_gradient
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.measure import (
    Resolved,
    SampledTensor,
    half_sums_of_squares,
    unscaled_cells,
    without_intended_infinities,
)

_Measured = list[tuple[CellKind, list[tf.Tensor]]]
_Exact = list[tuple[CellKind, list[Resolved]]]


class ResolvedRow(NamedTuple):
    """A row with its doubtful cells resolved.

    Attributes:
        row: float32 ``[cells]``, not finite only where a tensor is not.
        counts: size, NaN, +Inf, -Inf of every cell's tensor, int64 ``[cells, 4]``.
        is_overflow: whether nothing is bad but scaled gradients, bool scalar. A loss scale that changes causes that now
            and then. ``None`` without such a scale.
    """

    row: tf.Tensor
    counts: tf.Tensor
    is_overflow: tf.Tensor | None

    def without_overflow(self, without: Callable[[tf.Tensor], tf.Tensor]) -> ResolvedRow:
        """Return the same with the cells of an overflow replaced.

        Args:
            without: a row to the row of a step without an update.
        """
        if self.is_overflow is None:
            return self
        return self._replace(row=tf.where(self.is_overflow, without(self.row), self.row))


class Observation(Protocol):
    """A step as the guard sees it, on one device or several."""

    def row(self) -> tf.Tensor:
        """Return the row, float32 ``[cells]``: finite if and only if all tensors are and no square overflows."""

    def resolve(self) -> ResolvedRow:
        """Return the row and the exact counts; call it in the branch that a row with a non-finite cell takes."""


@dataclass(frozen=True, eq=False)
class StepObservation:
    """The observation of a step on one device.

    Attributes:
        tensors: of the step.
    """

    tensors: StepTensors

    def row(self) -> tf.Tensor:
        """Return the row; see :class:`Observation`."""
        step = self.tensors.unstacked()
        if self._factors is None:
            return self._joined(_measured(step, table.KINDS))
        before = half_sums_of_squares(step.raw)
        before = before if self._scale is None else unscaled_cells(before, self._scale)
        after = keep_absent(clipped_cells(before, self._factors), step.raw)
        others = [kind for kind in table.KINDS if kind.role not in ("gradient", "clipped")]
        return tf.concat([before, after, self._joined(_measured(step, others))], axis=0)

    def resolve(self) -> ResolvedRow:
        """Return the row and the exact counts; see :class:`Observation`."""
        row, counts, kinds = self.resolve_cells()
        if self.tensors.scale is None:
            return ResolvedRow(row, counts, None)
        resolved = ResolvedRow(row, counts, is_overflow(counts, kinds, self.tensors.scale))
        return resolved.without_overflow(lambda row: without_update(row, kinds))

    def resolve_cells(self) -> tuple[tf.Tensor, tf.Tensor, list[CellKind]]:
        """Return the row and the counts as they are, overflows of the loss scale included, and the kind of each cell.

        Returns:
            float32 ``[cells]``; int64 ``[cells, 4]``; one kind for each cell.
        """
        exact = self._exact(replace(self.tensors.unstacked(), clipped=self._clipped_again()))
        row = self._joined([(kind, [resolved.cell for resolved in some]) for kind, some in exact])
        nothing = tf.zeros([4], tf.int64)
        counts = [resolved.counts for _, some in exact for resolved in some]
        kinds = [kind for kind, some in exact for _ in some]
        return row, tf.stack([nothing if count is None else count for count in counts]), kinds

    def _exact(self, step: StepTensors) -> _Exact:
        exact = [(kind, [kind.resolve(tensor) for tensor in kind.tensors(step)]) for kind in table.KINDS]
        sampled = [
            (resolved, place, tensor)
            for kind, resolved in exact
            for place, tensor in enumerate(kind.tensors(step))
            if isinstance(tensor, SampledTensor)
        ]
        is_harmless = self._has_finite_results(exact) if sampled else None
        for resolved, place, tensor in sampled:
            resolved[place] = without_intended_infinities(tensor, resolved[place], is_harmless=is_harmless)
        return exact

    def _has_finite_results(self, exact: _Exact) -> tf.Tensor:
        """Return whether the loss is finite, and the gradients are or may have overflowed because of their scale."""
        gradients = [resolved.counts for kind, some in exact if kind.unscale is not None for resolved in some]
        is_finite = tf.equal(tf.add_n([tf.reduce_sum(counts[1:]) for counts in gradients if counts is not None]), 0)
        scale, loss = self.tensors.scale, self.tensors.loss
        is_finite = is_finite if scale is None else is_finite | (scale > 1)
        return is_finite if loss is None else is_finite & tf.reduce_all(tf.math.is_finite(loss))

    @property
    def _scale(self) -> tf.Tensor | None:
        """The factor that the measured gradients have; ``None`` where they have none."""
        return None if self.tensors.is_unscaled else self.tensors.scale

    @cached_property
    def _factors(self) -> list[Factor] | None:
        """The factors of a clip by norm; ``None`` if nothing clips, or something else does."""
        step = self.tensors
        return None if step.clipped is None else scale_factors(step.raw, step.clipped)

    def _clipped_again(self) -> Sequence[tf.Tensor | tf.IndexedSlices | None] | None:
        # A branch that read the clipped gradients themselves would keep them from being computed in place.
        factors, step = self._factors, self.tensors
        if step.clipped is None or factors is None:
            return step.clipped
        return [scaled_gradient(gradient, factors, column) for column, gradient in enumerate(step.raw)]

    def _joined(self, measured: _Measured) -> tf.Tensor:
        """Return cells as one vector, those of gradients without the loss scale."""
        if self._scale is None:
            return tf.stack([cell for _, some in measured for cell in some])
        blocks = []
        for unscale, group in groupby(measured, key=lambda pair: pair[0].unscale):
            block = [cell for _, some in group for cell in some]
            if block:
                blocks.append(tf.stack(block) if unscale is None else unscale(tf.stack(block), self._scale))
        return blocks[0] if len(blocks) == 1 else tf.concat(blocks, axis=0)


def is_overflow(counts: tf.Tensor, kinds: Sequence[CellKind], scale: tf.Tensor) -> tf.Tensor:
    """Return whether nothing is bad but scaled gradients, bool scalar.

    At a scale of 1 it is no overflow: no smaller scale would have kept the gradients finite.

    Args:
        counts: int64 ``[cells, 4]``.
        kinds: of the cells.
        scale: of the loss.
    """
    bad = tf.reduce_sum(counts[:, 1:], axis=1)
    gradients = _mask(kind.unscale is not None for kind in kinds)
    others = _mask(kind.unscale is None and kind.without_update != "absent" for kind in kinds)
    bad_gradients, bad_others = (tf.reduce_sum(tf.where(mask, bad, tf.zeros_like(bad))) for mask in (gradients, others))
    # Programs of TensorFlow 1 turn off that == compares the values of tensors.
    return tf.equal(bad_others, 0) & (bad_gradients > 0) & (scale > 1)


def without_update(row: tf.Tensor, kinds: Sequence[CellKind]) -> tf.Tensor:
    """Return the row of a step whose update is left out because its gradients overflowed.

    Args:
        row: float32 ``[cells]``.
        kinds: of the cells.
    """
    absent = _mask(kind.without_update == "absent" for kind in kinds)
    negative = _mask(kind.without_update == "negative" for kind in kinds)
    return tf.where(absent, ABSENT, tf.where(negative, -row, row))


def _measured(step: StepTensors, kinds: Iterable[CellKind]) -> _Measured:
    return [(kind, [kind.measure(tensor) for tensor in kind.tensors(step)]) for kind in kinds]


def _mask(flags: Iterable[bool]) -> tf.Tensor:
    return tf.constant(np.array(list(flags), bool))
