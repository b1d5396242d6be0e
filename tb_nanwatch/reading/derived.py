"""What a session leaves out of its log because it follows from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tb_nanwatch.schema.columns import default_column
from tb_nanwatch.schema.records import Array, ColumnKey, Header, Series
from tb_nanwatch.schema.stats import BOOKKEEPING, BY_KEY

_UNCLIPPED: Final[Mapping[str, str]] = {"clipped_norm": "grad_norm", "clipped_global_norm": "global_norm"}


def with_derived(series: Series, header: Header) -> Series:
    """Add the columns of clipping to a session that does not clip.

    Args:
        series: with the columns that were written.
        header: of its session.

    Returns:
        A series in which norms after clipping are those before it and the ratio is 1 wherever there is a
        gradient; the series itself where gradients are clipped.
    """
    if header.clip != "none":
        return series
    columns = dict(series.columns)
    for stat, source in _UNCLIPPED.items():
        if (source, "max") in columns and (stat, "max") not in columns:
            kept = (*BY_KEY[stat].merges, *BOOKKEEPING)
            columns |= {ColumnKey(stat, keeps): columns[ColumnKey(source, keeps)] for keeps in kept}
    if ("grad_norm", "count") in columns and ("clip_ratio", "min") not in columns:
        columns |= _ratio_of_one(series, columns[ColumnKey("grad_norm", "count")])
    return Series(series.first_step, series.last_step, columns)


def _ratio_of_one(series: Series, count: Array) -> dict[ColumnKey, Array]:
    one = np.where(count.astype(np.int64) > 0, np.float32(1), np.float32(np.nan))
    keys = [ColumnKey("clip_ratio", keeps) for keeps in ("nonfinite", "first_nonfinite", "kinds")]
    steps = {"first_step": series.first_step, "last_step": series.last_step}
    return {
        **{ColumnKey("clip_ratio", keeps): one for keeps in BY_KEY["clip_ratio"].merges},
        ColumnKey("clip_ratio", "count"): count,
        **{key: default_column(key.keeps, **steps, width=count.shape[1]) for key in keys},
    }
