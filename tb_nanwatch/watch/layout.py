"""The row: what one step leaves in the device's ring, and how it is read back.

A row is a vector of float32 cells, one for each thing that is measured. A cell holds half the sum of squares of its
tensor (what ``tf.nn.l2_loss`` gives), because the root is free on the host and not on the device. Two spellings are
outside the range of a sum of squares:

- ``ABSENT`` (-1): there was nothing to measure, as for a variable without a gradient;
- a number below -1: minus the norm itself, where the squares overflow although every element is finite. Squares
  overflow above 1e19, so the two cannot be confused.

The loss is the exception: its cell holds the loss. A step that has none has no such cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tb_nanwatch.numerics.clipping import clip_ratio
from tb_nanwatch.numerics.finiteness import NAN, NEG_INF, POS_INF, kinds_of
from tb_nanwatch.numerics.norms import combined_norm
from tb_nanwatch.numerics.spans import single_steps
from tb_nanwatch.schema.records import (
    ClipKind,
    Counts,
    DoubleArray,
    Finding,
    IntArray,
    KindArray,
    Role,
    Series,
    Variable,
)

ABSENT: Final = -1.0

_STAT_OF: Final[dict[Role, str]] = {
    "loss": "loss",
    "gradient": "grad_norm",
    "clipped": "clipped_norm",
    "weight": "weight_norm",
    "tensor": "tensor_norm",
}

Rows = npt.NDArray[np.float32]


class Cell(NamedTuple):
    """What one place in the row is a measure of."""

    role: Role
    name: str


@dataclass(frozen=True)
class Layout:
    """The order of cells in a row: gradients, clipped gradients, variables, watched tensors, statistics, the loss.

    Attributes:
        variables: in column order.
        tensors: names of watched tensors.
        loss: whether the step gives its loss.
        state: names of layers' statistics that the forward pass writes.
        clip: with ``"none"`` a row has no cells for clipped gradients: they are the gradients.
    """

    variables: tuple[Variable, ...]
    tensors: tuple[str, ...]
    loss: bool
    clip: ClipKind
    state: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the row, in order."""
        names = [variable.name for variable in self.variables]
        roles: tuple[Role, ...] = ("gradient", "weight") if self.clip == "none" else ("gradient", "clipped", "weight")
        measured = [Cell(role, name) for role in roles for name in names]
        last = (Cell("loss", "loss"),) if self.loss else ()
        tensors = (Cell("tensor", name) for name in self.tensors)
        return (*measured, *tensors, *(Cell("state", name) for name in self.state), *last)

    def decode(self, rows: Rows, steps: IntArray, counts: Mapping[int, IntArray]) -> Series:
        """Turn rows of the ring into single steps.

        Args:
            rows: float32 ``[n, cells]``, oldest first.
            steps: int64 ``[n]``, strictly increasing.
            counts: by place in ``rows``, int64 ``[cells, 4]`` as :meth:`findings` takes them, where they were taken.

        Returns:
            n spans of length 1, with every statistic of the catalogue that this run records.
        """
        norms, kinds = self._norms(rows), self._kinds(rows)
        for place, table in counts.items():
            kinds[place] = _bits(table)
        values = {role: norms[:, at] for role, at in self._places().items()}
        bits = {role: kinds[:, at] for role, at in self._places().items()}
        return single_steps(steps, *self._statistics(values, bits))

    def findings(self, counts: IntArray) -> tuple[Finding, ...]:
        """Return what was non-finite, given the exact counts of every cell.

        Args:
            counts: int64 ``[cells, 4]``: size, NaN, +Inf, -Inf.
        """
        exact = [Counts(*(int(number) for number in row)) for row in counts]
        return tuple(
            Finding(cell.role, cell.name, count)
            for cell, count in zip(self.cells, exact, strict=True)
            if count.nonfinite
        )

    def _places(self) -> dict[Role, list[int]]:
        places: dict[Role, list[int]] = {}
        for place, cell in enumerate(self.cells):
            places.setdefault(cell.role, []).append(place)
        return places

    def _norms(self, rows: Rows) -> DoubleArray:
        wide = rows.astype(np.float64)
        norms = np.where(wide < ABSENT, -wide, np.sqrt(2.0 * np.maximum(wide, 0.0)))
        norms[wide == ABSENT] = np.nan
        if self.loss:
            norms[:, -1] = wide[:, -1]
        return norms

    def _kinds(self, rows: Rows) -> KindArray:
        kinds = kinds_of(rows)
        if self.loss:
            loss = rows[:, -1]
            kinds[:, -1] = np.where(np.isposinf(loss), POS_INF, np.where(np.isneginf(loss), NEG_INF, kinds[:, -1]))
        return kinds

    def _statistics(
        self, values: dict[Role, DoubleArray], bits: dict[Role, KindArray]
    ) -> tuple[dict[str, DoubleArray], dict[str, KindArray]]:
        own = {_STAT_OF[role]: role for role in values if role in _STAT_OF}
        stats = {stat: values[role] for stat, role in own.items()}
        kinds = {stat: bits[role] for stat, role in own.items()}
        stats["global_norm"], kinds["global_norm"] = _together(values["gradient"], bits["gradient"])
        if self.clip != "none":
            stats["clip_ratio"] = clip_ratio(values["gradient"], values["clipped"])
            kinds["clip_ratio"] = np.zeros_like(bits["clipped"])
            stats["clipped_global_norm"], kinds["clipped_global_norm"] = _together(values["clipped"], bits["clipped"])
        return stats, kinds


def _together(norms: DoubleArray, kinds: KindArray) -> tuple[DoubleArray, KindArray]:
    whole = np.where(kinds != 0, np.nan, norms)
    return combined_norm(whole)[:, None], np.bitwise_or.reduce(kinds, axis=1, keepdims=True)


def _bits(counts: IntArray) -> KindArray:
    nan, pos_inf, neg_inf = (counts[:, 1:] > 0).astype(np.uint8).T
    bits: KindArray = nan * np.uint8(NAN) + pos_inf * np.uint8(POS_INF) + neg_inf * np.uint8(NEG_INF)
    return bits
