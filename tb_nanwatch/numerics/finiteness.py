"""Exact counts of what is not finite."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import Array, Counts, KindArray

NAN, POS_INF, NEG_INF, INF = 1, 2, 4, 8
"""The bits of the ``kinds`` column; INF is an infinity whose sign was not recorded."""
MOST_SAMPLES: Final = 64
"""How many bad samples of a tensor are kept."""


def count_nonfinite(values: npt.ArrayLike) -> Counts:
    """Count elements, NaN, +Inf and -Inf.

    Args:
        values: any shape; a dtype without NaN (integers, booleans, strings) has none. A complex infinity has no
            sign and counts as +Inf.

    Returns:
        Zeros for an empty array.

    Example:
        >>> count_nonfinite([1.0, float("inf"), float("nan")])
        Counts(size=3, nan=1, pos_inf=1, neg_inf=0)
    """
    array = np.asarray(values)
    if not _can_be_nonfinite(array):
        return Counts(size=array.size, nan=0, pos_inf=0, neg_inf=0)
    nan, inf = np.isnan(array), np.isinf(array)
    if array.dtype.kind == "c":
        return Counts(size=array.size, nan=int((nan & ~inf).sum()), pos_inf=int(inf.sum()), neg_inf=0)
    positive = ~np.signbit(array)
    return Counts(
        size=array.size,
        nan=int(nan.sum()),
        pos_inf=int((inf & positive).sum()),
        neg_inf=int((inf & ~positive).sum()),
    )


def bad_samples(values: npt.ArrayLike, *, limit: int = MOST_SAMPLES) -> tuple[int, ...]:
    """Return the indices in the leading dimension that hold anything non-finite, the first ``limit`` of them.

    Args:
        values: any shape; a scalar has no leading dimension, hence no samples.
        limit: how many to return at the most.

    Returns:
        Increasing indices; empty where all is finite.

    Example:
        >>> bad_samples([[1.0, 2.0], [float("nan"), 3.0]])
        (1,)
    """
    array = np.asarray(values)
    if array.ndim == 0 or not _can_be_nonfinite(array):
        return ()
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1) if array.size else np.zeros(0, bool)
    return tuple(int(index) for index in np.flatnonzero(bad)[:limit])


def bad_elements(values: npt.ArrayLike, *, limit: int) -> tuple[tuple[int, ...], ...]:
    """Return the indices of the elements that are not finite, the first ``limit`` of them.

    Args:
        values: any shape.
        limit: how many to return at the most.

    Returns:
        An index in each dimension for each element, in the order of memory: for a scalar that is not finite, one empty
        tuple; empty where all is finite.

    Example:
        >>> bad_elements([[1.0, 2.0], [float("nan"), 3.0]], limit=8)
        ((1, 0),)
    """
    array = np.asarray(values)
    if not _can_be_nonfinite(array):
        return ()
    places = np.flatnonzero(~np.isfinite(array))[:limit]
    return tuple(tuple(int(at) for at in np.unravel_index(place, array.shape)) for place in places)


def kinds_of(norms: npt.ArrayLike) -> KindArray:
    """Return what a norm tells of its tensor: NaN from a NaN, an Inf of unknown sign from an Inf, else nothing.

    Args:
        norms: any real dtype and shape.

    Returns:
        uint8 bits, of the same shape.
    """
    array = np.asarray(norms)
    kinds: KindArray = np.isnan(array).astype(np.uint8) * np.uint8(NAN) + np.isinf(array).astype(np.uint8) * np.uint8(
        INF
    )
    return kinds


def _can_be_nonfinite(array: Array) -> bool:
    # ml_dtypes' bfloat16 and float8 are of kind "V" or "f" by version; isfinite knows them all.
    return array.dtype.kind in "fcV" and array.dtype.names is None
