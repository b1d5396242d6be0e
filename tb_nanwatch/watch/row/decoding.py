"""How the host reads rows: from cells to the statistics of single steps, and from counts to findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from tb_nanwatch.numerics.finiteness import NAN, NEG_INF, POS_INF, kinds_of
from tb_nanwatch.numerics.norms import clip_ratio, combined_norm
from tb_nanwatch.numerics.spans import single_steps
from tb_nanwatch.schema.records import Counts, Finding, IntArray, KindArray, Role, Series
from tb_nanwatch.watch.row import cells as table
from tb_nanwatch.watch.row.cells import Cell, CellKind, Layout, places_of
from tb_nanwatch.watch.row.encoding import Rows, has_intended_infinities, norms_of

_Values = npt.NDArray[np.floating]


class Column(NamedTuple):
    """A quantity over steps.

    Attributes:
        values: ``[n, width]``; NaN where it was not measured.
        kinds: uint8 ``[n, width]``, the bits of what was non-finite.
    """

    values: _Values
    kinds: KindArray


class DerivedStat(NamedTuple):
    """A statistic that the host computes from others.

    Attributes:
        stat: its key in the catalogue.
        sources: keys of the statistics that it needs. A run without one of them lacks it too.
        derive: the columns of the sources, in that order, to its column.
    """

    stat: str
    sources: tuple[str, ...]
    derive: Callable[..., Column]


def _norm_together(norms: Column) -> Column:
    whole = np.where(norms.kinds != 0, np.nan, norms.values) if norms.kinds.any() else norms.values
    return Column(combined_norm(whole)[:, None], np.bitwise_or.reduce(norms.kinds, axis=1, keepdims=True))


def _clip_ratio(before: Column, after: Column) -> Column:
    return Column(clip_ratio(before.values, after.values), np.zeros_like(after.kinds))


DERIVED: Final = (
    DerivedStat("global_norm", ("grad_norm",), _norm_together),
    DerivedStat("clip_ratio", ("grad_norm", "clipped_norm"), _clip_ratio),
    DerivedStat("clipped_global_norm", ("clipped_norm",), _norm_together),
)


class Decoder(Protocol):
    """Reads the rows of a run, of one device or several."""

    @property
    def layout(self) -> Layout:
        """What a step on one device measures."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of a row, in order."""

    def decode(self, rows: Rows, steps: IntArray, counts: Mapping[int, IntArray]) -> Series:
        """Return rows as single steps.

        Args:
            rows: float32 ``[n, cells]``, oldest first.
            steps: int64 ``[n]``, strictly increasing.
            counts: by index into ``rows``, the exact counts of a row that has them, int64 ``[cells, 4]``.

        Returns:
            n spans of length 1, with every statistic of the catalogue that this run records.
        """

    def findings(self, counts: IntArray) -> tuple[Finding, ...]:
        """Return what was non-finite in a row.

        Args:
            counts: size, NaN, +Inf, -Inf of every cell's tensor, int64 ``[cells, 4]``.
        """

    def origin_device(self, counts: IntArray) -> tuple[int | None, int | None]:
        """Return the replica and the process of :meth:`findings`; ``None`` where there is only one."""

    def intended_infinities(self, rows: Rows) -> tuple[str, ...]:
        """Return the names of the tensors whose infinities were taken as intended.

        Args:
            rows: float32 ``[n, cells]``.
        """


@dataclass(frozen=True)
class RowDecoder:
    """Reads the rows of steps on one device; see :class:`Decoder`.

    Attributes:
        layout: of the rows.
    """

    layout: Layout

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of a row, in order."""
        return self.layout.cells

    def decode(self, rows: Rows, steps: IntArray, counts: Mapping[int, IntArray]) -> Series:
        """Return rows as single steps."""
        columns = {kind.stat: column for kind, column in self._columns(rows, counts) if kind.stat is not None}
        for stat, sources, derive in DERIVED:
            if all(source in columns for source in sources):
                columns[stat] = derive(*(columns[source] for source in sources))
        if self.layout.scale or self.layout.skips:
            skipped = self._skipped(rows)
            columns["skipped"] = Column(skipped, np.zeros(skipped.shape, np.uint8))
        values = {stat: column.values for stat, column in columns.items()}
        return single_steps(steps, values, {stat: column.kinds for stat, column in columns.items()})

    def findings(self, counts: IntArray) -> tuple[Finding, ...]:
        """Return what was non-finite in a row."""
        return _findings(self.cells, counts)

    def origin_device(self, counts: IntArray) -> tuple[int | None, int | None]:
        """Return ``(None, None)``: there is only one device."""
        del counts
        return None, None

    def intended_infinities(self, rows: Rows) -> tuple[str, ...]:
        """Return the names of the tensors whose infinities were taken as intended."""
        return names_with_intended_infinities(self.cells, rows)

    def _columns(self, rows: Rows, counts: Mapping[int, IntArray]) -> list[tuple[CellKind, Column]]:
        """Return the cells of each kind that the rows have, decoded."""
        values, bits = norms_of(rows), kinds_of(rows)
        for kind, span in self._spans:
            if kind.decode is not norms_of:
                values[:, span] = kind.decode(rows[:, span])
            if kind.kinds is not kinds_of:
                bits[:, span] = kind.kinds(rows[:, span])
        for place, counted in counts.items():
            bits[place] = _bits(counted)
        return [(kind, Column(values[:, span], bits[:, span])) for kind, span in self._spans]

    @cached_property
    def _spans(self) -> list[tuple[CellKind, slice]]:
        """Each kind that a row has, with the indices of its cells."""
        sizes = [len(kind.names(self.layout)) for kind in table.KINDS]
        spans = [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]
        return [(kind, span) for kind, span in zip(table.KINDS, spans, strict=True) if span.start != span.stop]

    def _skipped(self, rows: Rows) -> npt.NDArray[np.float64]:
        by_policy = ~np.isfinite(rows).all(axis=1) if self.layout.skips else np.zeros(len(rows), bool)
        by_scale = (rows[:, places_of(self.cells, "scale")] < 0).any(axis=1)
        return np.where(by_policy | by_scale, 1.0, 0.0)[:, None]


def findings_of_microbatch(layout: Layout, counts: IntArray) -> tuple[Finding, ...]:
    """Return what was non-finite in a micro-batch.

    Args:
        layout: of the rows.
        counts: size, NaN, +Inf, -Inf of each gradient and of the loss, int64 ``[V + 1, 4]``.
    """
    return _findings([*(Cell("gradient", name) for name in layout.names), Cell("loss", "loss")], counts)


def names_with_intended_infinities(row_cells: Sequence[Cell], rows: Rows) -> tuple[str, ...]:
    """Return the names of watched tensors that a row encodes with infinities on purpose, each once.

    Args:
        row_cells: of a row, in order.
        rows: float32 ``[n, cells]``.
    """
    places = places_of(row_cells, "tensor")
    found = has_intended_infinities(rows[:, places]).any(axis=0)
    return tuple(dict.fromkeys(row_cells[places[at]].name for at in np.flatnonzero(found)))


def _findings(row_cells: Sequence[Cell], counts: IntArray) -> tuple[Finding, ...]:
    exact = [Counts(*(int(number) for number in row)) for row in counts]
    return tuple(
        Finding(cast("Role", cell.role), cell.name, count)
        for cell, count in zip(row_cells, exact, strict=True)
        if count.nonfinite
    )


def _bits(counts: IntArray) -> KindArray:
    nan, pos_inf, neg_inf = (counts[:, 1:] > 0).astype(np.uint8).T
    bits: KindArray = nan * np.uint8(NAN) + pos_inf * np.uint8(POS_INF) + neg_inf * np.uint8(NEG_INF)
    return bits
