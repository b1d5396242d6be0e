"""The selection of steps and columns for a chart, and their conversion for JSON, with ``None`` for NaN."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from tb_nanwatch.schema.codec import finite_or_none
from tb_nanwatch.schema.protocol import Curve, Numbers
from tb_nanwatch.schema.records import Array, ColumnKey, IntArray, Series
from tb_nanwatch.schema.stats import BY_KEY


def select_steps(series: Series, *, first: int | None, last: int | None) -> Series:
    """Return the spans that overlap the steps ``first`` to ``last``, inclusive; ``None`` leaves an end open."""
    begin = 0 if first is None else int(np.searchsorted(series.last_step, first))
    end = len(series) if last is None else int(np.searchsorted(series.first_step, last, side="right"))
    return series.rows(slice(begin, end))


def select_columns(series: Series, stats: Container[str], *, keeps: Container[str] | None = None) -> Series:
    """Return the series with only some statistics and, if ``keeps`` is given, only some of their columns."""
    keys = [key for key in series.columns if key.stat in stats and (keeps is None or key.keeps in keeps)]
    return Series(series.first_step, series.last_step, {key: series.columns[key] for key in keys})


def curve(series: Series, stat: str, *, name: str, column: int = 0) -> Curve:
    """Return one column of a statistic as a curve for the page."""
    kept = {keeps: numbers(series, ColumnKey(stat, keeps), column) for keeps in BY_KEY[stat].merges}
    return Curve(
        name=name,
        min=kept.get("min", ()),
        max=kept.get("max", ()),
        mean=kept.get("mean", ()),
        kinds=kinds(series, stat, column),
    )


def numbers(series: Series, key: ColumnKey, column: int, *, digits: int = 6) -> Numbers:
    """Return one column as numbers, with ``None`` for each missing finite value."""
    return finite_or_none(series.columns[key][:, column], digits=digits)


def kinds(series: Series, stat: str, column: int) -> tuple[int, ...]:
    """Return the kinds of non-finite values in each span of a column, as bits."""
    return integers(series.column(stat, "kinds")[:, column])


def integers(array: Array | IntArray) -> tuple[int, ...]:
    """Return an array ``[n]`` as Python integers."""
    return tuple(array.tolist())
