"""What the page can draw of a series: no more spans than fit, layers in place of variables, no NaN."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import cast

import numpy as np

from tb_nanwatch.numerics.norms import combined_norm
from tb_nanwatch.numerics.spans import thin_to
from tb_nanwatch.schema.codec import finite_or_none
from tb_nanwatch.schema.protocol import Curve, Numbers
from tb_nanwatch.schema.records import Array, ColumnKey, IntArray, Series
from tb_nanwatch.schema.stats import BY_KEY


def within(series: Series, *, first: int | None, last: int | None) -> Series:
    """Return the spans that reach into ``first`` to ``last``, both included; ``None`` leaves an end open."""
    begin = 0 if first is None else int(np.searchsorted(series.last_step, first))
    end = len(series) if last is None else int(np.searchsorted(series.first_step, last, side="right"))
    return series.rows(slice(begin, end))


def thinned(series: Series, spans: int) -> Series:
    """Return the series in at most ``spans`` spans."""
    return thin_to(series, spans) if len(series) else series


def only(series: Series, stats: Container[str], *, keeps: Container[str] | None = None) -> Series:
    """Return the series with some statistics alone, and of these what is asked for: the rest need not be merged."""
    keys = [key for key in series.columns if key.stat in stats and (keeps is None or key.keeps in keeps)]
    return Series(series.first_step, series.last_step, {key: series.columns[key] for key in keys})


def grouped(series: Series, stat: str, groups: Sequence[Sequence[int]]) -> Series:
    """Combine columns of one statistic, as the catalogue says: norms into their norm, ratios into the least.

    It is done before spans are merged any further, where it is exact for spans of one step. For longer ones
    the peak of a layer is taken from the peaks of its variables, which may have been in different steps: it
    is then an upper bound.

    Args:
        series: has the statistic.
        stat: its key.
        groups: the columns that each new column stands for.

    Returns:
        A series with that statistic alone, as wide as there are groups.
    """
    columns = {key: _regrouped(key, series.columns[key], groups) for key in series.columns if key.stat == stat}
    return Series(series.first_step, series.last_step, columns)


def curve(series: Series, stat: str, *, name: str, column: int = 0) -> Curve:
    """Return one column of a statistic as the page draws it."""
    kept = {keeps: numbers(series, ColumnKey(stat, keeps), column) for keeps in BY_KEY[stat].merges}
    return Curve(
        name=name,
        min=kept.get("min", ()),
        max=kept.get("max", ()),
        mean=kept.get("mean", ()),
        kinds=kinds(series, stat, column),
    )


def numbers(series: Series, key: ColumnKey, column: int) -> Numbers:
    """Return one column as numbers, ``None`` where it has no finite value."""
    return finite_or_none(series.columns[key][:, column])


def kinds(series: Series, stat: str, column: int) -> tuple[int, ...]:
    """Return which kinds of non-finite values each span of a column saw, as bits."""
    return integers(series.column(stat, "kinds")[:, column])


def integers(array: Array | IntArray) -> tuple[int, ...]:
    """Return an array ``[n]`` as Python's own integers."""
    return tuple(int(number) for number in array)


def _regrouped(key: ColumnKey, column: Array, groups: Sequence[Sequence[int]]) -> Array:
    combined = [_combined(key, column[:, list(group)]) for group in groups]
    return np.stack(combined, axis=1) if combined else column[:, :0]


def _combined(key: ColumnKey, columns: Array) -> Array:
    match key.keeps:
        case "kinds":
            return cast("Array", np.bitwise_or.reduce(columns, axis=1))
        case "count" | "nonfinite":
            return cast("Array", np.max(columns, axis=1))
        case "first_nonfinite":
            # As unsigned, -1 is larger than every step, so the minimum is the first there is.
            return cast("Array", columns.astype(np.uint64).min(axis=1).astype(np.int64))
        case _ if BY_KEY[key.stat].combine == "root_sum_square":
            return combined_norm(columns)
        case _:
            return cast("Array", np.fmin.reduce(columns, axis=1))
