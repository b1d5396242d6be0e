"""The combination of variables into layers, for one statistic, and a cache of combined series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import ref

import numpy as np
import numpy.typing as npt

from tb_nanwatch.reading.cache import StampedCache
from tb_nanwatch.reading.selection import select_columns
from tb_nanwatch.schema.columns import is_shared, stored_part
from tb_nanwatch.schema.records import Array, ColumnKey, Series, unique_arrays
from tb_nanwatch.schema.stats import BY_KEY

_CACHE_BYTES: Final = 24 * 2**20
_ROWS_AT_ONCE: Final = 2048
"""Rows that fit the cache of the processor. A copy of the whole log in double precision would not."""
_Places = npt.NDArray[np.intp]


class LayerCache:
    """Combines the variables of a series into layers and keeps the result, so that a zoom need not combine again."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._cache = StampedCache[Series](_CACHE_BYTES, _bytes_of)

    def grouped(self, series: Series, stat: str, *, keeps: Sequence[str], groups: Sequence[Sequence[int]]) -> Series:
        """Return the columns ``keeps`` of one statistic, combined as by :func:`group_columns`."""
        key = id(series), stat, tuple(keeps), tuple(map(tuple, groups))
        # A new series may reuse the id of a deleted one, so the stamp is the series. It is a weak reference: a strong
        # one would keep an old series of a live run after each drain.
        stamp = ref(series)
        layers = self._cache.get(key, stamp)
        if layers is None:
            layers = group_columns(select_columns(series, [stat], keeps=keeps), stat, groups)
            self._cache.put(key, stamp, value=layers)
        return layers


def group_columns(series: Series, stat: str, groups: Sequence[Sequence[int]]) -> Series:
    """Combine columns of one statistic as the catalogue says: norms into their norm, ratios into the smallest.

    Call it before spans merge further: for spans of one step the result is exact. In longer spans, the peaks of a
    layer's variables may belong to different steps. Then the peak of the layer is an upper bound.

    Args:
        series: has the statistic.
        stat: key of the statistic.
        groups: the column numbers that each new column combines; none of them empty.

    Returns:
        A series with that statistic only, as wide as the number of groups.
    """
    columns = {key: _regrouped(key, series.columns[key], groups) for key in series.columns if key.stat == stat}
    return Series(series.first_step, series.last_step, columns)


def _regrouped(key: ColumnKey, column: Array, groups: Sequence[Sequence[int]]) -> Array:
    if not groups:
        return column[:, :0]
    if is_shared(column):
        return np.broadcast_to(column[:, :1], (len(column), len(groups)))
    order = np.array([place for group in groups for place in group], np.intp)
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    blocks = [column[row : row + _ROWS_AT_ONCE] for row in range(0, max(1, len(column)), _ROWS_AT_ONCE)]
    return np.concatenate([_combined(key, block[:, order], starts) for block in blocks])


def _combined(key: ColumnKey, columns: Array, starts: _Places) -> Array:
    if key.keeps == "kinds":
        return np.bitwise_or.reduceat(columns, starts, axis=1)
    if key.keeps in {"count", "nonfinite"}:
        return np.maximum.reduceat(columns, starts, axis=1)
    if key.keeps == "first_nonfinite":
        # As an unsigned number, -1 (no such step) is larger than every step. So the minimum is the first step.
        return np.minimum.reduceat(columns.astype(np.uint64), starts, axis=1).astype(np.int64)
    if BY_KEY[key.stat].combine == "root_sum_square":
        return _norms(columns, starts)
    return np.fmin.reduceat(columns, starts, axis=1)


def _norms(columns: Array, starts: _Places) -> Array:
    # The square of any float32 fits double precision.
    wide = columns.astype(np.float64)
    absent = np.isnan(wide)
    norms = np.sqrt(np.add.reduceat(np.where(absent, 0.0, wide * wide), starts, axis=1))
    if absent.any():
        norms[np.logical_and.reduceat(absent, starts, axis=1)] = np.nan
    return norms.astype(np.float32) if columns.dtype == np.float32 else norms


def _bytes_of(series: Series) -> int:
    return 1 + sum(stored_part(column).nbytes for column in unique_arrays(series.columns))
