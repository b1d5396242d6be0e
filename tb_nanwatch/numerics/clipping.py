"""What clipping did to a norm."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import DoubleArray


def clip_ratio(before: npt.ArrayLike, after: npt.ArrayLike) -> DoubleArray:
    """Return norm after clipping over norm before.

    Args:
        before: norms before clipping, non-negative; NaN for what was not measured.
        after: norms after clipping, same shape.

    Returns:
        float64. 1 where nothing was clipped, and where both are 0: a zero gradient is not clipped. 0 where a finite
        gradient was clipped to nothing. NaN where either is NaN or ``before`` is Inf.

    Example:
        >>> clip_ratio([10.0, 0.0, 3.0], [5.0, 0.0, 3.0]).tolist()
        [0.5, 1.0, 1.0]
    """
    a, b = np.asarray(after).astype(np.float64, copy=False), np.asarray(before).astype(np.float64, copy=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((a == 0) & (b == 0), 1.0, a / b)
    return np.asarray(np.where(np.isinf(b), np.nan, ratio), np.float64)
