"""Columns that a session leaves out of its log because they follow from others."""

from __future__ import annotations

import numpy as np

from tb_nanwatch.schema.columns import default_column
from tb_nanwatch.schema.records import Array, ColumnKey, Header, Series
from tb_nanwatch.schema.stats import BOOKKEEPING, BY_KEY, STATS


def with_derived(series: Series, header: Header) -> Series:
    """Add the columns of clipping to a session that does not clip.

    Args:
        series: the columns that the session wrote.
        header: header of the session.

    Returns:
        A series whose norms after clipping equal those before, and whose clip ratio is 1 for every gradient. If the
        session clips, the series itself.
    """
    if header.clip != "none":
        return series
    columns = dict(series.columns)
    for stat in STATS:
        source = stat.unclipped
        if source is not None and (source, "max") in columns and (stat.key, "max") not in columns:
            kept = (*stat.merges, *BOOKKEEPING)
            columns |= {ColumnKey(stat.key, keeps): columns[ColumnKey(source, keeps)] for keeps in kept}
    if ("grad_norm", "count") in columns and ("clip_ratio", "min") not in columns:
        columns |= _ratio_of_one(series, columns[ColumnKey("grad_norm", "count")])
    return Series(series.first_step, series.last_step, columns)


def _ratio_of_one(series: Series, count: Array) -> dict[ColumnKey, Array]:
    ratio = np.where(count.astype(np.int64) > 0, np.float32(1), np.float32(np.nan))
    keys = [ColumnKey("clip_ratio", keeps) for keeps in ("nonfinite", "first_nonfinite", "kinds")]
    steps = {"first_step": series.first_step, "last_step": series.last_step}
    return {
        **{ColumnKey("clip_ratio", keeps): ratio for keeps in BY_KEY["clip_ratio"].merges},
        ColumnKey("clip_ratio", "count"): count,
        **{key: default_column(key.keeps, **steps, width=count.shape[1]) for key in keys},
    }
