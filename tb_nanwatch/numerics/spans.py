"""Spans: many steps as one row, and the merge that makes them.

Merging is associative, so it does not matter whether steps are merged as they are written, again as the log is
thinned, or once more for the width of a screen: the peak stays the peak and the first non-finite step stays the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import Array, ColumnKey, IntArray, Series
from tb_nanwatch.schema.stats import BY_KEY


def single_steps(steps: IntArray, values: Mapping[str, npt.NDArray[np.floating]], kinds: Mapping[str, Array]) -> Series:
    """Turn steps as they were measured into spans of length 1.

    Args:
        steps: int64 ``[n]``, strictly increasing.
        values: by statistic, ``[n, width]``; NaN or Inf where there is no finite value.
        kinds: by statistic, uint8 ``[n, width]``: what was non-finite. A value that is not finite although ``kinds``
            is 0 was not measured (a variable without a gradient).

    Returns:
        A series of n spans.
    """
    columns: dict[ColumnKey, Array] = {}
    for stat, value in values.items():
        bad, absent = kinds[stat] != 0, ~np.isfinite(value)
        kept = np.where(bad | absent, np.nan, value).astype(np.float32)
        columns |= {ColumnKey(stat, merge): kept for merge in BY_KEY[stat].merges}
        columns[ColumnKey(stat, "count")] = (~bad & ~absent).astype(np.int64)
        columns[ColumnKey(stat, "nonfinite")] = bad.astype(np.int64)
        columns[ColumnKey(stat, "first_nonfinite")] = np.where(bad, steps[:, None], -1)
        columns[ColumnKey(stat, "kinds")] = kinds[stat].astype(np.uint8)
    return Series(steps, steps, columns)


def merge_spans(series: Series, starts: npt.ArrayLike) -> Series:
    """Merge runs of neighbouring spans into one each.

    Args:
        series: n spans.
        starts: int ``[m]``, strictly increasing, the first 0: where each new span begins.

    Returns:
        m spans. Extremes, counts and first steps are exact; a mean is exact to rounding.
    """
    at = np.asarray(starts, np.intp)
    if len(at) == len(series):
        return series
    ends = np.append(at[1:], len(series)) - 1
    columns = {key: _merge_column(series.columns, key, at) for key in series.columns}
    return Series(series.first_step[at], series.last_step[ends], columns)


def merge_alike(parts: Sequence[Series]) -> Series:
    """Merge what several saw of the same steps, as the replicas of one training do.

    Where their spans are not of the same steps, those that overlap become one span.

    Args:
        parts: with the same columns.

    Returns:
        A series in which a step counts once, however many saw it: as non-finite if it was so with any of them, and
        with the mean of their means.
    """
    if len(parts) == 1:
        return parts[0]
    first, last = (np.concatenate([getattr(part, end) for part in parts]) for end in ("first_step", "last_step"))
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    at = np.flatnonzero(np.concatenate([np.ones(min(1, len(first)), bool), first[1:] > last[:-1]]))
    columns = {key: np.concatenate([part.columns[key] for part in parts])[order] for key in parts[0].columns}
    merged = {key: _merge_column(columns, key, at) for key in columns}
    counts = [key for key in columns if key.keeps in ("count", "nonfinite")]
    merged |= {key: np.maximum.reduceat(columns[key], at) for key in counts}
    return Series(first[at], last[np.append(at[1:], len(first)) - 1], merged)


def concatenate(parts: Sequence[Series]) -> Series:
    """Join series one after the other; a column that a part lacks makes the join impossible (KeyError)."""
    if len(parts) == 1:
        return parts[0]
    columns = {key: np.concatenate([part.columns[key] for part in parts]) for key in parts[0].columns}
    return Series(
        np.concatenate([part.first_step for part in parts]),
        np.concatenate([part.last_step for part in parts]),
        columns,
    )


def thin_to(series: Series, width: int) -> Series:
    """Merge neighbours until there are at most ``width`` spans, each of about as many steps as the next.

    Args:
        series: n spans.
        width: at least 1.

    Returns:
        The series itself where it is short enough.
    """
    if len(series) <= width:
        return series
    first, last = int(series.first_step[0]), int(series.last_step[-1])
    bin_of = (series.first_step - first) * width // (last - first + 1)
    starts = np.flatnonzero(np.diff(bin_of, prepend=-1))
    return merge_spans(series, starts)


def _merge_column(columns: Mapping[ColumnKey, Array], key: ColumnKey, starts: npt.NDArray[np.intp]) -> Array:
    column = columns[key]
    match key.keeps:
        case "min":
            return np.fmin.reduceat(column, starts)
        case "max":
            return np.fmax.reduceat(column, starts)
        case "mean":
            return _merge_means(column, columns[ColumnKey(key.stat, "count")], starts)
        case "first_nonfinite":
            # As unsigned, -1 is larger than every step, so the minimum is the first there is.
            return np.minimum.reduceat(column.astype(np.uint64), starts).astype(np.int64)
        case "kinds":
            return np.bitwise_or.reduceat(column, starts)
        case _:
            return np.add.reduceat(column, starts)


def _merge_means(means: Array, count: Array, starts: npt.NDArray[np.intp]) -> Array:
    counts = count.astype(np.int64)
    measured = counts > 0
    weighted = np.where(measured, means, 0.0).astype(np.float64) * counts
    total = np.add.reduceat(counts, starts)
    merged = np.add.reduceat(weighted, starts) / np.maximum(total, 1)
    return np.where(total > 0, merged, np.nan).astype(np.float32)
