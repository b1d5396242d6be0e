"""The row: what one step leaves in the device's ring, and how it is read back.

A row is a vector of float32 cells, one for each thing that is measured. A cell holds half the sum of squares of its
tensor (what ``tf.nn.l2_loss`` gives), because the root is free on the host and not on the device. Three forms are
outside the range of a sum of squares:

- ``ABSENT`` (-1): there was nothing to measure, as for a variable without a gradient;
- a number below -1: minus the norm itself, where the squares overflow although every element is finite. Squares
  overflow above 1e19, so the two cannot be confused;
- a number between -1 and 0: minus ``MEANT`` times the norm of the finite elements. The others are infinities that the
  layer puts out on purpose.

The loss is the exception: its cell holds the loss. The cell of the update's scalars holds their sum. That of the loss
scale holds the scale, which is negative in a step whose update the scale's owner leaves out because the scaled
gradients overflowed; their cells are then ``ABSENT``. A step that has none of these has no such cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from tb_nanwatch.numerics.finiteness import NAN, NEG_INF, POS_INF, kinds_of
from tb_nanwatch.numerics.norms import clip_ratio, combined_norm
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
MEANT: Final = 2.0**-65
"""Times the norm of float32 squares that do not overflow, below 1; a power of 2, so that no digit is lost."""
LEAST_MEANT: Final = float(np.finfo(np.float32).tiny)
"""In place of a product that is smaller: a cell of 0 says that nothing was infinite."""

_STAT_OF: Final[dict[str, str]] = {
    "loss": "loss",
    "scale": "loss_scale",
    "microbatch": "microbatch_norm",
    "microbatches": "microbatches",
    "gradient": "grad_norm",
    "clipped": "clipped_norm",
    "weight": "weight_norm",
    "tensor": "tensor_norm",
}

Rows = npt.NDArray[np.float32]
Norms = npt.NDArray[np.floating]


class Cell(NamedTuple):
    """What one place in the row is a measure of."""

    role: Role | Literal["scale", "microbatch", "microbatches", "bad microbatch", "mark"]
    name: str


@dataclass(frozen=True)
class Layout:
    """The order of cells in a row: gradients, clipped gradients, variables, watched tensors, statistics, the loss.

    Attributes:
        variables: in column order.
        tensors: names of watched tensors.
        loss: whether the step gives its loss.
        state: names of layers' statistics that the forward pass writes.
        scale: whether the loss is scaled by a factor that changes.
        skips: whether the policy leaves out the update of a bad step.
        accumulates: whether a step is made of micro-batches.
        scalars: whether the scalars that the update multiplies by are known before it: one cell for all.
        clip: with ``"none"`` a row has no cells for clipped gradients: they are the gradients.
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
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the row, in order."""
        names = [variable.name for variable in self.variables]
        roles: tuple[Role, ...] = ("gradient", "weight") if self.clip == "none" else ("gradient", "clipped", "weight")
        measured = [Cell(role, name) for role in roles for name in names]
        last = (Cell("loss", "loss"),) if self.loss else ()
        tensors = (Cell("tensor", name) for name in self.tensors)
        state = (Cell("state", name) for name in self.state)
        scale = (Cell("scale", "loss_scale"),) if self.scale else ()
        scalars = (Cell("scalar", "the update"),) if self.scalars else ()
        return (*measured, *tensors, *state, *self._microbatch_cells(names), *scalars, *scale, *last)

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
        values = {role: norms[:, at] for role, at in self._places.items()}
        bits = {role: kinds[:, at] for role, at in self._places.items()}
        stats, stat_kinds = self._statistics(values, bits)
        if self.scale or self.skips:
            stats["skipped"] = self._skipped(rows)[:, None]
            stat_kinds["skipped"] = np.zeros(stats["skipped"].shape, np.uint8)
        return single_steps(steps, stats, stat_kinds)

    def findings(self, counts: IntArray) -> tuple[Finding, ...]:
        """Return what was non-finite, given the exact counts of every cell.

        Args:
            counts: int64 ``[cells, 4]``: size, NaN, +Inf, -Inf.
        """
        return _findings(self.cells, counts)

    def meant_infinities(self, rows: Rows) -> tuple[str, ...]:
        """Return the names of the tensors in which infinities were taken as meant.

        Args:
            rows: float32 ``[n, cells]``.
        """
        places = self.places_of("tensor")
        found = ((rows[:, places] < 0) & (rows[:, places] > ABSENT)).any(axis=0)
        return tuple(dict.fromkeys(self.cells[places[at]].name for at in np.flatnonzero(found)))

    def whose(self, counts: IntArray) -> tuple[int | None, int | None]:
        """Return the replica and the process that :meth:`findings` are of; ``None`` where there is but one."""
        del counts
        return None, None

    def findings_of_microbatch(self, counts: IntArray) -> tuple[Finding, ...]:
        """Return what was non-finite in a micro-batch, given the exact counts of its gradients and its loss.

        Args:
            counts: int64 ``[V + 1, 4]``: size, NaN, +Inf, -Inf.
        """
        cells = [*(Cell("gradient", variable.name) for variable in self.variables), Cell("loss", "loss")]
        return _findings(cells, counts)

    def places_of(self, *roles: str) -> list[int]:
        """Return the places of every cell that plays one of the roles."""
        return [place for place, cell in enumerate(self.cells) if cell.role in roles]

    def _microbatch_cells(self, names: Sequence[str]) -> tuple[Cell, ...]:
        if not self.accumulates:
            return ()
        total = (Cell("microbatches", ""), Cell("bad microbatch", ""), Cell("mark", ""))
        return (*(Cell("microbatch", name) for name in names), *total)

    @cached_property
    def _places(self) -> dict[str, slice]:
        # The cells of a role stand side by side.
        counted = Counter(cell.role for cell in self.cells)
        ends = accumulate(counted.values())
        return {role: slice(end - counted[role], end) for role, end in zip(counted, ends, strict=True)}

    def _skipped(self, rows: Rows) -> DoubleArray:
        by_policy = ~np.isfinite(rows).all(axis=1) if self.skips else np.zeros(len(rows), bool)
        by_scale = (rows[:, self.places_of("scale")] < 0).any(axis=1)
        return np.where(by_policy | by_scale, 1.0, 0.0)

    def _norms(self, rows: Rows) -> Rows:
        norms = _roots(rows)
        for role in ("loss", "microbatches", "scale"):
            if role in self._places:
                cells = rows[:, self._places[role]]
                norms[:, self._places[role]] = np.abs(cells) if role == "scale" else cells
        return norms

    def _kinds(self, rows: Rows) -> KindArray:
        kinds = kinds_of(rows)
        if self.loss:
            loss = rows[:, -1]
            kinds[:, -1] = np.where(np.isposinf(loss), POS_INF, np.where(np.isneginf(loss), NEG_INF, kinds[:, -1]))
        return kinds

    def _statistics(
        self, values: dict[str, Rows], bits: dict[str, KindArray]
    ) -> tuple[dict[str, Norms], dict[str, KindArray]]:
        own = {_STAT_OF[role]: role for role in values if role in _STAT_OF}
        stats: dict[str, Norms] = {stat: values[role] for stat, role in own.items()}
        kinds = {stat: bits[role] for stat, role in own.items()}
        stats["global_norm"], kinds["global_norm"] = _together(values["gradient"], bits["gradient"])
        if self.clip != "none":
            stats["clip_ratio"] = clip_ratio(values["gradient"], values["clipped"])
            kinds["clip_ratio"] = np.zeros_like(bits["clipped"])
            stats["clipped_global_norm"], kinds["clipped_global_norm"] = _together(values["clipped"], bits["clipped"])
        return stats, kinds


def _findings(cells: Sequence[Cell], counts: IntArray) -> tuple[Finding, ...]:
    exact = [Counts(*(int(number) for number in row)) for row in counts]
    return tuple(
        Finding(cast("Role", cell.role), cell.name, count)
        for cell, count in zip(cells, exact, strict=True)
        if count.nonfinite
    )


def _roots(rows: Rows) -> Rows:
    """Return the norms that half the sums of squares are of, and NaN where there is none."""
    with np.errstate(over="ignore"):
        norms: Rows = np.sqrt(2.0 * np.maximum(rows, np.float32(0)))
    beyond = np.isinf(norms)
    if beyond.any():
        # Twice a number is out of float32's range where its root is not.
        norms[beyond] = np.sqrt(2.0 * rows[beyond].astype(np.float64))
    is_other = rows < 0
    if is_other.any():
        cells = rows[is_other]
        with np.errstate(over="ignore"):
            meant = np.where(cells < -LEAST_MEANT, cells / np.float32(-MEANT), 0)
        norms[is_other] = np.where(cells < ABSENT, -cells, np.where(cells == ABSENT, np.nan, meant))
    return norms


def _together(norms: Rows, kinds: KindArray) -> tuple[DoubleArray, KindArray]:
    whole = np.where(kinds != 0, np.nan, norms) if kinds.any() else norms
    return combined_norm(whole)[:, None], np.bitwise_or.reduce(kinds, axis=1, keepdims=True)


def _bits(counts: IntArray) -> KindArray:
    nan, pos_inf, neg_inf = (counts[:, 1:] > 0).astype(np.uint8).T
    bits: KindArray = nan * np.uint8(NAN) + pos_inf * np.uint8(POS_INF) + neg_inf * np.uint8(NEG_INF)
    return bits
