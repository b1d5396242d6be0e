"""The bookkeeping of a log in which nothing happened: one value a span, without storage for each variable.

In most logs every step was measured and none was non-finite. Held as arrays in full, that would be twice as large as
all that was measured.
"""

from __future__ import annotations

import numpy as np

from tb_nanwatch.schema.records import Array, IntArray


def default_column(keeps: str, *, first_step: IntArray, last_step: IntArray, width: int) -> Array:
    """Return what a column holds in a log that left it out: every step measured, none non-finite.

    Args:
        keeps: the key of a bookkeeping column, less its statistic.
        first_step: int64 ``[n]``.
        last_step: int64 ``[n]``.
        width: number of columns.

    Returns:
        ``[n, width]``, read-only and without storage of its own.
    """
    column = {
        "count": last_step - first_step + 1,
        "nonfinite": np.zeros_like(first_step),
        "first_nonfinite": np.full_like(first_step, -1),
        "kinds": np.zeros(len(first_step), np.uint8),
    }[keeps]
    return np.broadcast_to(column[:, None], (len(first_step), width))


def is_shared(column: Array) -> bool:
    """Return whether one value of each span stands for all of its columns, as in :func:`default_column`."""
    return column.shape[1] > 1 and column.strides[1] == 0


def shared_part(column: Array) -> Array:
    """Return what has to be looked at of a column: one value a span where that stands for all."""
    return column[:, :1] if is_shared(column) else column
