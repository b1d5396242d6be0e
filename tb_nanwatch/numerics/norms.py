"""L2 norms without intermediate overflow or underflow, and the ratio of norms that clipping causes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import DoubleArray


def l2_norm(values: npt.ArrayLike) -> float:
    """Return the L2 norm; it is finite if every element is finite and the norm fits float64.

    Elements are scaled before they are squared, so that 1e30 in float32 does not become Inf and 1e-30 does not become
    0. The scale is a power of two near the largest element, which makes the scaling exact.

    Args:
        values: any real dtype and shape.

    Returns:
        0 for an empty array; NaN if an element is NaN; else Inf if an element is infinite or the norm overflows
        float64.

    Example:
        >>> l2_norm([3 * 2.0**900, 4 * 2.0**900]) == 5 * 2.0**900
        True
    """
    magnitudes = np.abs(np.asarray(values).astype(np.float64, copy=False)).ravel()
    if magnitudes.size == 0:
        return 0.0
    peak = float(magnitudes.max())
    if not math.isfinite(peak):
        return math.nan if np.isnan(magnitudes).any() else math.inf
    if peak == 0.0:
        return 0.0
    # The smallest subnormal has exponent -1073, and 2**1073 overflows. Only ldexp can scale by it.
    exponent = math.frexp(peak)[1]
    scaled = np.ldexp(magnitudes, -exponent)
    try:
        return math.ldexp(math.sqrt(float(np.dot(scaled, scaled))), exponent)
    except OverflowError:
        return math.inf


def combined_norm(norms: npt.ArrayLike, *, axis: int = -1) -> DoubleArray:
    """Return the norm of several tensors together: the root of the sum of their squared norms.

    Args:
        norms: non-negative, any real dtype; NaN for an absent tensor.
        axis: the axis to combine.

    Returns:
        float64, without ``axis``. Absent tensors do not count; NaN if all are absent. Squares do not overflow.

    Example:
        >>> float(combined_norm([3.0, 4.0, float("nan")]))
        5.0
    """
    array = np.asarray(norms).astype(np.float64, copy=False)
    present = ~np.isnan(array)
    filled = np.where(present, array, 0.0)
    peak = filled.max(axis=axis, keepdims=True, initial=0.0)
    scale = np.where((peak > 0) & np.isfinite(peak), peak, 1.0)
    combined = np.sqrt(np.sum((filled / scale) ** 2, axis=axis)) * np.squeeze(scale, axis)
    return np.asarray(np.where(present.any(axis=axis), combined, np.nan), np.float64)


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
