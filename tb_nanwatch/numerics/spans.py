"""Spans: rows that stand for several steps, and the merge that makes them.

Merging is associative. Steps may merge when the log is written, again when it is thinned, and again for the width of a
screen: the result keeps the same peak and the same first non-finite step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.columns import concatenate_columns, default_column, is_shared, stored_part
from tb_nanwatch.schema.records import Array, ColumnKey, DoubleArray, IntArray, Series
from tb_nanwatch.schema.stats import BOOKKEEPING, BY_KEY

_MERGES: Final = {"min": np.fmin, "max": np.fmax, "kinds": np.bitwise_or}
_LARGEST: Final = float(np.finfo(np.float32).max)
_LONG_RUN: Final = 4096
"""Elements per new span above which one NumPy call per span is faster than ``reduceat`` (measured)."""
_Number = TypeVar("_Number", bound=np.generic)


def single_steps(steps: IntArray, values: Mapping[str, npt.NDArray[np.floating]], kinds: Mapping[str, Array]) -> Series:
    """Convert measured steps into spans of length 1.

    Args:
        steps: int64 ``[n]``, strictly increasing.
        values: by statistic, ``[n, width]``; NaN or Inf for a missing finite value.
        kinds: by statistic, uint8 ``[n, width]``, the kinds that were non-finite. If a value is non-finite although
            ``kinds`` is 0, it was not measured, as for a variable without a gradient.

    Returns:
        A series of n spans.
    """
    columns: dict[ColumnKey, Array] = {}
    defaults = {width: _default_bookkeeping(steps, width) for width in {value.shape[1] for value in values.values()}}
    for stat, value in values.items():
        finite = np.isfinite(value)
        is_whole = bool(finite.all()) and not kinds[stat].any()
        measured = value if is_whole else np.where(finite & (kinds[stat] == 0), value, np.nan)
        # The norm of a finite tensor may still exceed float32, the dtype of the log.
        narrow = np.clip(measured, -_LARGEST, _LARGEST).astype(np.float32)
        columns |= dict.fromkeys((ColumnKey(stat, merge) for merge in BY_KEY[stat].merges), narrow)
        bookkeeping = defaults[value.shape[1]] if is_whole else _bookkeeping(steps, finite, kinds[stat])
        columns |= {ColumnKey(stat, keeps): column for keeps, column in bookkeeping.items()}
    return Series(steps, steps, columns)


def _default_bookkeeping(steps: IntArray, width: int) -> dict[str, Array]:
    return {keeps: default_column(keeps, first_step=steps, last_step=steps, width=width) for keeps in BOOKKEEPING}


def _bookkeeping(steps: IntArray, finite: npt.NDArray[np.bool_], kinds: Array) -> dict[str, Array]:
    bad = kinds != 0
    return {
        "count": (finite & ~bad).astype(np.int64),
        "nonfinite": bad.astype(np.int64),
        "first_nonfinite": np.where(bad, steps[:, None], -1),
        "kinds": kinds.astype(np.uint8),
    }


def merge_spans(series: Series, starts: npt.ArrayLike) -> Series:
    """Merge neighbouring spans.

    Args:
        series: n spans.
        starts: int ``[m]``, strictly increasing, the first 0: row at which each merged span begins.

    Returns:
        m spans. Extremes, counts and first steps are exact; means are exact up to rounding.
    """
    rows = np.asarray(starts, np.intp)
    if len(rows) == len(series):
        return series
    ends = np.append(rows[1:], len(series)) - 1
    return Series(series.first_step[rows], series.last_step[ends], _merge_columns(series.columns, rows))


def merge_alike(parts: Sequence[Series]) -> Series:
    """Merge series of the same steps, as the replicas of one training record them.

    If the spans of the series differ, overlapping spans become one span.

    Args:
        parts: series with the same columns.

    Returns:
        A series that counts each step once. A step is non-finite if it is non-finite in any part. A mean is the mean of
        the parts' means.
    """
    if len(parts) == 1:
        return parts[0]
    first, last = (np.concatenate([getattr(part, end) for part in parts]) for end in ("first_step", "last_step"))
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(first)), bool), first[1:] > last[:-1]]))
    columns = {key: np.concatenate([part.columns[key] for part in parts])[order] for key in parts[0].columns}
    merged = _merge_columns(columns, starts)
    counts = [key for key in columns if key.keeps in ("count", "nonfinite")]
    merged |= {key: np.maximum.reduceat(columns[key], starts) for key in counts}
    return Series(first[starts], last[np.append(starts[1:], len(first)) - 1], merged)


def concatenate(parts: Sequence[Series]) -> Series:
    """Concatenate series in order; raise KeyError if a part lacks a column of the first part."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[tuple[int, ...], Array] = {}
    columns: dict[ColumnKey, Array] = {}
    for key in parts[0].columns:
        pieces = [part.columns[key] for part in parts]
        arrays = tuple(map(id, pieces))
        joined[arrays] = columns[key] = joined[arrays] if arrays in joined else concatenate_columns(pieces)
    return Series(
        np.concatenate([part.first_step for part in parts]),
        np.concatenate([part.last_step for part in parts]),
        columns,
    )


def thin_to(series: Series, width: int) -> Series:
    """Merge neighbours until at most ``width`` spans are left, each of about the same number of steps.

    Args:
        series: n spans.
        width: at least 1.

    Returns:
        The series itself if it is short enough.
    """
    if len(series) <= width:
        return series
    first, last = int(series.first_step[0]), int(series.last_step[-1])
    bin_of = (series.first_step - first) * width // (last - first + 1)
    starts = np.flatnonzero(np.diff(bin_of, prepend=-1))
    return merge_spans(series, starts)


def _merge_columns(columns: Mapping[ColumnKey, Array], starts: npt.NDArray[np.intp]) -> dict[ColumnKey, Array]:
    """Merge every column; merge an array that several keys share only once."""
    merged: dict[tuple[str, int, int], Array] = {}
    merged_columns: dict[ColumnKey, Array] = {}
    for key, column in columns.items():
        count = columns[ColumnKey(key.stat, "count")] if key.keeps == "mean" else column
        arrays = key.keeps, id(column), id(count)
        if arrays not in merged:
            merged[arrays] = _merge_column(key.keeps, column, count, starts=starts)
        merged_columns[key] = merged[arrays]
    return merged_columns


def _merge_column(keeps: str, column: Array, count: Array, *, starts: npt.NDArray[np.intp]) -> Array:
    if is_shared(column):
        merged = _merge_column(keeps, column[:, :1], count, starts=starts)
        return np.broadcast_to(merged[:, 0, None], (len(starts), column.shape[1]))
    if keeps == "mean":
        return _merge_means(column, count, starts)
    if keeps == "first_nonfinite":
        # As an unsigned number, -1 (no such step) is larger than every step. So the minimum is the first step.
        return _reduced(np.minimum, column.astype(np.uint64), starts).astype(np.int64)
    return _reduced(_MERGES.get(keeps, np.add), column, starts)


def _merge_means(means: Array, count: Array, starts: npt.NDArray[np.intp]) -> Array:
    counts: IntArray = stored_part(count).astype(np.int64)
    total = _reduced(np.add, counts, starts)
    measured: DoubleArray = means.astype(np.float64)
    if counts.min(initial=1) > 0:
        return (_reduced(np.add, measured * counts, starts) / total).astype(np.float32)
    weighted = np.where(counts > 0, measured, 0.0) * counts
    merged = _reduced(np.add, weighted, starts) / np.maximum(total, 1)
    return np.where(total > 0, merged, np.nan).astype(np.float32)


def _reduced(operation: np.ufunc, column: npt.NDArray[_Number], starts: npt.NDArray[np.intp]) -> npt.NDArray[_Number]:
    """Return ``operation.reduceat(column, starts)``, computed faster.

    It is ten times as fast if all merged spans have the same number of old spans, and three times if they are long.
    """
    spans, length = len(starts), len(column) // max(1, len(starts))
    is_even = spans * length == len(column) and (spans == 1 or bool(np.all(np.diff(starts) == length)))
    reduced: npt.NDArray[_Number]
    if is_even:
        reduced = operation.reduce(column.reshape(spans, length, column.shape[1]), axis=1)
    elif length * column.shape[1] > _LONG_RUN:
        reduced = np.stack([operation.reduce(part, axis=0) for part in np.split(column, starts[1:])])
    else:
        reduced = operation.reduceat(column, starts)
    return reduced
