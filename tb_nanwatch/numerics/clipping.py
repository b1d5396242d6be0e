"""The ratio of a norm after clipping to the norm before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import DoubleArray


def clip_ratio(before: npt.ArrayLike, after: npt.ArrayLike) -> DoubleArray:
    """Return the norm after clipping over the norm before.

    Args:
        before: norms before clipping, non-negative; NaN for an unmeasured norm.
        after: norms after clipping, same shape.

    Returns:
        float64. 1 if the gradient is not clipped, and if both norms are 0, because a zero gradient is not clipped. 0 if
        a finite gradient is clipped to zero. NaN if either norm is NaN or ``before`` is Inf.

    Example:
        >>> clip_ratio([10.0, 0.0, 3.0], [5.0, 0.0, 3.0]).tolist()
        [0.5, 1.0, 1.0]
    """
    a, b = np.asarray(after).astype(np.float64, copy=False), np.asarray(before).astype(np.float64, copy=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((a == 0) & (b == 0), 1.0, a / b)
    return np.asarray(np.where(np.isinf(b), np.nan, ratio), np.float64)
