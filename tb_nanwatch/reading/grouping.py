"""Layers in place of variables: columns of one statistic, combined as the catalogue says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.columns import is_shared
from tb_nanwatch.schema.records import Array, ColumnKey, Series
from tb_nanwatch.schema.stats import BY_KEY

_ROWS_AT_ONCE: Final = 2048
"""As many as fit the processor's cache, rather than a copy of the whole log in double precision."""
_Places = npt.NDArray[np.intp]


def grouped(series: Series, stat: str, groups: Sequence[Sequence[int]]) -> Series:
    """Combine columns of one statistic, as the catalogue says: norms into their norm, ratios into the least.

    It is done before spans are merged any further, where it is exact for spans of one step. For longer ones
    the peak of a layer is taken from the peaks of its variables, which may have been in different steps: it
    is then an upper bound.

    Args:
        series: has the statistic.
        stat: its key.
        groups: the columns that each new column stands for; none of them empty.

    Returns:
        A series with that statistic alone, as wide as there are groups.
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
    blocks = [column[at : at + _ROWS_AT_ONCE] for at in range(0, max(1, len(column)), _ROWS_AT_ONCE)]
    return np.concatenate([_combined(key, block[:, order], starts) for block in blocks])


def _combined(key: ColumnKey, columns: Array, starts: _Places) -> Array:
    if key.keeps == "kinds":
        return np.bitwise_or.reduceat(columns, starts, axis=1)
    if key.keeps in {"count", "nonfinite"}:
        return np.maximum.reduceat(columns, starts, axis=1)
    if key.keeps == "first_nonfinite":
        # As unsigned, -1 is larger than every step, so the minimum is the first there is.
        return np.minimum.reduceat(columns.astype(np.uint64), starts, axis=1).astype(np.int64)
    if BY_KEY[key.stat].combine == "root_sum_square":
        return _norms(columns, starts)
    return np.fmin.reduceat(columns, starts, axis=1)


def _norms(columns: Array, starts: _Places) -> Array:
    # In double precision the square of any float32 is in range.
    wide = columns.astype(np.float64)
    absent = np.isnan(wide)
    norms = np.sqrt(np.add.reduceat(np.where(absent, 0.0, wide * wide), starts, axis=1))
    if absent.any():
        norms[np.logical_and.reduceat(absent, starts, axis=1)] = np.nan
    return norms.astype(np.float32) if columns.dtype == np.float32 else norms
