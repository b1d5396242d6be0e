"""The cells of a row: one table that says what a step measures, how, and how the host reads it.

A step leaves one row in the ring: a vector of float32 cells, in the order of :data:`KINDS`. Most cells encode the norm
of a tensor, see :mod:`~tb_nanwatch.watch.row.encoding`. A few hold a number: the loss, the loss scale, the count of
micro-batches, the sum of the update's scalars.

To add a statistic that a step measures, add its entry to the catalogue (``schema/stats.py``), a function to
``measure.py``, and a kind of cell here. A statistic that the host computes from others is an entry of ``DERIVED`` in
``decoding.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import NEG_INF, POS_INF, kinds_of
from tb_nanwatch.schema.records import ClipKind, KindArray, Role, Variable
from tb_nanwatch.watch.row.encoding import Rows, norms_of
from tb_nanwatch.watch.row.measure import (
    Gradient,
    InitiallyInfinite,
    Resolved,
    SampledTensor,
    count,
    half_sum_of_squares,
    loss_cell,
    resolve,
    resolve_loss,
    unscaled_cells,
)
from tb_nanwatch.watch.row.scalars import UpdateScalars

CellRole = Role | Literal["scale", "microbatch", "microbatches", "bad microbatch", "bad microbatch mark"]


class Cell(NamedTuple):
    """What one element of a row measures."""

    role: CellRole
    name: str


def places_of(cells: Sequence[Cell], role: CellRole) -> list[int]:
    """Return the indices of the cells with a role."""
    return [place for place, cell in enumerate(cells) if cell.role == role]


@dataclass(frozen=True)
class Layout:
    """What a step on one device measures; it decides which cells a row has.

    Attributes:
        variables: in column order.
        tensors: names of watched tensors.
        loss: whether the step gives its loss.
        clip: with ``"none"`` a row has no cells for clipped gradients, because they equal the gradients.
        state: names of the layers' statistics that the forward pass writes.
        scale: whether a factor that changes scales the loss.
        skips: whether the policy leaves out the update of a bad step.
        accumulates: whether a step consists of micro-batches.
        scalars: whether the scalars of the update are known before it; one cell holds all of them.
    """

    variables: tuple[Variable, ...]
    tensors: tuple[str, ...]
    loss: bool
    clip: ClipKind
    state: tuple[str, ...] = ()
    scale: bool = False
    skips: bool = False
    accumulates: bool = False
    scalars: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the variables."""
        return tuple(variable.name for variable in self.variables)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the row, in order."""
        return tuple(Cell(kind.role, name) for kind in KINDS for name in kind.names(self))


@dataclass(frozen=True, eq=False)
class StepTensors:
    """The tensors of one step on one device that fill the cells of a row.

    Attributes:
        raw: gradients before clipping, ``[V]``.
        clipped: gradients after clipping, ``[V]``; ``None`` where nothing clips.
        weights: the variables as tensors, as the step began, ``[V]``; ``None`` for one that is already measured.
        watched: tensors that the user watches.
        loss: scalar, or one value for each sample; ``None`` if the step does not give it.
        state: what the forward pass writes to layers' statistics.
        scale: of the loss, if it is scaled. The gradients have the same factor, and are measured without it.
        is_unscaled: whether the given gradients are already without the factor.
        microbatches: the cells of the step's micro-batches, ``[V + 3]``; ``None`` where it has none.
        scalars: that the update multiplies by; ``None`` where they are not known before it.
    """

    raw: Sequence[Gradient]
    clipped: Sequence[Gradient] | None
    weights: Sequence[tf.Tensor | InitiallyInfinite | None]
    watched: Sequence[tf.Tensor | SampledTensor | None]
    loss: tf.Tensor | None
    state: Sequence[tf.Tensor | InitiallyInfinite | None] = ()
    scale: tf.Tensor | None = None
    is_unscaled: bool = False
    microbatches: tf.Tensor | Sequence[tf.Tensor] | None = None
    scalars: UpdateScalars | None = None

    def unstacked(self) -> StepTensors:
        """Return the same with one tensor for each cell of the micro-batches, in the graph that is traced now."""
        return self if self.microbatches is None else replace(self, microbatches=tf.unstack(self.microbatches))


def _given(number: tf.Tensor) -> tf.Tensor:
    return number


def _never_an_origin(number: tf.Tensor) -> Resolved:
    return Resolved(None, number)


def _resolve_number(number: tf.Tensor) -> Resolved:
    return Resolved(count(number), number)


def _signed_kinds(rows: Rows) -> KindArray:
    kinds = kinds_of(rows)
    return np.where(np.isposinf(rows), POS_INF, np.where(np.isneginf(rows), NEG_INF, kinds))


@dataclass(frozen=True)
class CellKind:
    """One kind of cell, on the device and on the host.

    Attributes:
        role: of its cells; no other kind has it.
        names: names of its cells in a row with a given layout; none where such a row lacks the kind.
        tensors: the tensors that its cells measure in a given step, as many as it has names.
        stat: key of the statistic in the catalogue that its cells hold; ``None`` where the log does not keep them.
        measure: a tensor to its cell, float32 scalar, in every step. The cell is finite only if the tensor is.
        resolve: a tensor to its exact counts and its cell, in a step with a cell that is not finite.
        decode: cells to values of the statistic, both ``[n, cells]``.
        kinds: cells to the bits of what is non-finite in them.
        unscale: cells (as one vector) and the loss scale to cells without that; ``None`` for a kind that the loss scale
            does not multiply. A kind with ``unscale`` measures gradients.
        without_update: its cells in a step whose update the loss scale's owner leaves out, because the scaled gradients
            overflowed: kept, ``ABSENT`` or the negative.
    """

    role: CellRole
    names: Callable[[Layout], Sequence[str]]
    tensors: Callable[[StepTensors], Sequence[Any]]
    stat: str | None = None
    measure: Callable[[Any], tf.Tensor] = half_sum_of_squares
    resolve: Callable[[Any], Resolved] = resolve
    decode: Callable[[Rows], Rows] = norms_of
    kinds: Callable[[Rows], KindArray] = kinds_of
    unscale: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    without_update: Literal["kept", "absent", "negative"] = "kept"


KINDS: tuple[CellKind, ...] = (
    CellKind(
        "gradient",
        names=lambda layout: layout.names,
        tensors=lambda step: step.raw,
        stat="grad_norm",
        unscale=unscaled_cells,
        without_update="absent",
    ),
    CellKind(
        "clipped",
        names=lambda layout: () if layout.clip == "none" else layout.names,
        tensors=lambda step: step.clipped or (),
        stat="clipped_norm",
        unscale=unscaled_cells,
        without_update="absent",
    ),
    CellKind(
        "weight",
        names=lambda layout: layout.names,
        tensors=lambda step: step.weights,
        stat="weight_norm",
    ),
    CellKind(
        "tensor",
        names=lambda layout: layout.tensors,
        tensors=lambda step: step.watched,
        stat="tensor_norm",
    ),
    CellKind(
        "state",
        names=lambda layout: layout.state,
        tensors=lambda step: step.state,
    ),
    CellKind(
        "microbatch",
        names=lambda layout: layout.names if layout.accumulates else (),
        tensors=lambda step: () if step.microbatches is None else step.microbatches[:-3],
        stat="microbatch_norm",
        measure=_given,
        resolve=_never_an_origin,
    ),
    CellKind(
        "microbatches",
        names=lambda layout: ("",) if layout.accumulates else (),
        tensors=lambda step: () if step.microbatches is None else [step.microbatches[-3]],
        stat="microbatches",
        measure=_given,
        resolve=_never_an_origin,
        decode=lambda cells: cells,
    ),
    CellKind(
        "bad microbatch",
        names=lambda layout: ("",) if layout.accumulates else (),
        tensors=lambda step: () if step.microbatches is None else [step.microbatches[-2]],
        measure=_given,
        resolve=_never_an_origin,
    ),
    CellKind(
        # NaN if a micro-batch was bad: that makes the row non-finite although the total may be finite.
        "bad microbatch mark",
        names=lambda layout: ("",) if layout.accumulates else (),
        tensors=lambda step: () if step.microbatches is None else [step.microbatches[-1]],
        measure=_given,
        resolve=_never_an_origin,
    ),
    CellKind(
        "scalar",
        names=lambda layout: ("the update",) if layout.scalars else (),
        tensors=lambda step: () if step.scalars is None else [step.scalars.cell],
        measure=_given,
        resolve=_resolve_number,
        # An update that is left out multiplies by nothing.
        without_update="absent",
    ),
    CellKind(
        "scale",
        names=lambda layout: ("loss_scale",) if layout.scale else (),
        tensors=lambda step: () if step.scale is None else [tf.cast(step.scale, tf.float32)],
        stat="loss_scale",
        measure=_given,
        resolve=_never_an_origin,
        decode=np.abs,
        # The sign tells the host that the update was left out.
        without_update="negative",
    ),
    CellKind(
        "loss",
        names=lambda layout: ("loss",) if layout.loss else (),
        tensors=lambda step: () if step.loss is None else [step.loss],
        stat="loss",
        measure=loss_cell,
        resolve=resolve_loss,
        decode=lambda cells: cells,
        kinds=_signed_kinds,
    ),
)
"""Every kind of cell, in the order of a row. Kinds with the same ``unscale`` stand side by side."""
