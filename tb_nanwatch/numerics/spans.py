"""Spans: many steps as one row, and the merge that makes them.

Merging is associative, so it does not matter whether steps are merged as they are written, again as the log is
thinned, or once more for the width of a screen: the peak stays the peak and the first non-finite step stays the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.defaults import default_column, is_shared, shared_part
from tb_nanwatch.schema.pieces import concatenate_columns
from tb_nanwatch.schema.records import Array, ColumnKey, DoubleArray, IntArray, Series
from tb_nanwatch.schema.stats import BOOKKEEPING, BY_KEY

_MERGES: Final = {"min": np.fmin, "max": np.fmax, "kinds": np.bitwise_or}
_LARGEST: Final = float(np.finfo(np.float32).max)
_LONG_RUN: Final = 4096
"""Elements that become one span; from here on a call for each of them is worth it (measured)."""
_Number = TypeVar("_Number", bound=np.generic)


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
    nothing = {width: _nothing_happened(steps, width) for width in {value.shape[1] for value in values.values()}}
    for stat, value in values.items():
        finite = np.isfinite(value)
        is_whole = bool(finite.all()) and not kinds[stat].any()
        kept = value if is_whole else np.where(finite & (kinds[stat] == 0), value, np.nan)
        # A norm may be too large for what it is written as, though all that it is of is finite.
        narrow = np.clip(kept, -_LARGEST, _LARGEST).astype(np.float32)
        columns |= dict.fromkeys((ColumnKey(stat, merge) for merge in BY_KEY[stat].merges), narrow)
        events = nothing[value.shape[1]] if is_whole else _events(steps, finite, kinds[stat])
        columns |= {ColumnKey(stat, keeps): column for keeps, column in events.items()}
    return Series(steps, steps, columns)


def _nothing_happened(steps: IntArray, width: int) -> dict[str, Array]:
    return {keeps: default_column(keeps, first_step=steps, last_step=steps, width=width) for keeps in BOOKKEEPING}


def _events(steps: IntArray, finite: npt.NDArray[np.bool_], kinds: Array) -> dict[str, Array]:
    bad = kinds != 0
    return {
        "count": (finite & ~bad).astype(np.int64),
        "nonfinite": bad.astype(np.int64),
        "first_nonfinite": np.where(bad, steps[:, None], -1),
        "kinds": kinds.astype(np.uint8),
    }


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
    return Series(series.first_step[at], series.last_step[ends], _merge_columns(series.columns, at))


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
    merged = _merge_columns(columns, at)
    counts = [key for key in columns if key.keeps in ("count", "nonfinite")]
    merged |= {key: np.maximum.reduceat(columns[key], at) for key in counts}
    return Series(first[at], last[np.append(at[1:], len(first)) - 1], merged)


def concatenate(parts: Sequence[Series]) -> Series:
    """Join series one after the other; a column that a part lacks makes the join impossible (KeyError)."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[tuple[int, ...], Array] = {}
    columns: dict[ColumnKey, Array] = {}
    for key in parts[0].columns:
        pieces = [part.columns[key] for part in parts]
        same = tuple(map(id, pieces))
        joined[same] = columns[key] = joined[same] if same in joined else concatenate_columns(pieces)
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


def _merge_columns(columns: Mapping[ColumnKey, Array], starts: npt.NDArray[np.intp]) -> dict[ColumnKey, Array]:
    """Merge every column; what several keys have in one array is merged once."""
    merged: dict[tuple[str, int, int], Array] = {}
    found: dict[ColumnKey, Array] = {}
    for key, column in columns.items():
        count = columns[ColumnKey(key.stat, "count")] if key.keeps == "mean" else column
        same = key.keeps, id(column), id(count)
        if same not in merged:
            merged[same] = _merge_column(key.keeps, column, count, starts=starts)
        found[key] = merged[same]
    return found


def _merge_column(keeps: str, column: Array, count: Array, *, starts: npt.NDArray[np.intp]) -> Array:
    if is_shared(column):
        merged = _merge_column(keeps, column[:, :1], count, starts=starts)
        return np.broadcast_to(merged[:, 0, None], (len(starts), column.shape[1]))
    if keeps == "mean":
        return _merge_means(column, count, starts)
    if keeps == "first_nonfinite":
        # As unsigned, -1 is larger than every step, so the minimum is the first there is.
        return _reduced(np.minimum, column.astype(np.uint64), starts).astype(np.int64)
    return _reduced(_MERGES.get(keeps, np.add), column, starts)


def _merge_means(means: Array, count: Array, starts: npt.NDArray[np.intp]) -> Array:
    counts: IntArray = shared_part(count).astype(np.int64)
    total = _reduced(np.add, counts, starts)
    measured: DoubleArray = means.astype(np.float64)
    if counts.min(initial=1) > 0:
        return (_reduced(np.add, measured * counts, starts) / total).astype(np.float32)
    weighted = np.where(counts > 0, measured, 0.0) * counts
    merged = _reduced(np.add, weighted, starts) / np.maximum(total, 1)
    return np.where(total > 0, merged, np.nan).astype(np.float32)


def _reduced(operation: np.ufunc, column: npt.NDArray[_Number], starts: npt.NDArray[np.intp]) -> npt.NDArray[_Number]:
    """Do what ``operation.reduceat`` does, ten times as fast where all new spans are of as many old ones.

    Where they are not, but long, it is still three times as fast.
    """
    many, each = len(starts), len(column) // max(1, len(starts))
    is_even = many * each == len(column) and (many == 1 or bool(np.all(np.diff(starts) == each)))
    reduced: npt.NDArray[_Number]
    if is_even:
        reduced = operation.reduce(column.reshape(many, each, column.shape[1]), axis=1)
    elif each * column.shape[1] > _LONG_RUN:
        reduced = np.stack([operation.reduce(part, axis=0) for part in np.split(column, starts[1:])])
    else:
        reduced = operation.reduceat(column, starts)
    return reduced
