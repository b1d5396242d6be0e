"""What the page can draw of a series: no more spans than fit, layers in place of variables, no NaN."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

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


def numbers(series: Series, key: ColumnKey, column: int, *, digits: int = 6) -> Numbers:
    """Return one column as numbers, ``None`` where it has no finite value."""
    return finite_or_none(series.columns[key][:, column], digits=digits)


def kinds(series: Series, stat: str, column: int) -> tuple[int, ...]:
    """Return which kinds of non-finite values each span of a column saw, as bits."""
    return integers(series.column(stat, "kinds")[:, column])


def integers(array: Array | IntArray) -> tuple[int, ...]:
    """Return an array ``[n]`` as Python's own integers."""
    return tuple(array.tolist())
