"""Exact counts and indices of non-finite elements."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.schema.records import Array, Counts, KindArray

NAN, POS_INF, NEG_INF, INF = 1, 2, 4, 8
"""The bits of the ``kinds`` column; INF is an infinity of unrecorded sign."""
MOST_SAMPLES: Final = 64
"""The most bad samples that a record keeps per tensor."""


def count_nonfinite(values: npt.ArrayLike) -> Counts:
    """Count elements, NaN, +Inf and -Inf.

    Args:
        values: any shape. A dtype without NaN (integers, booleans, strings) gives counts of 0. A complex infinity has
            no sign and counts as +Inf.

    Returns:
        Counts of 0 for an empty array.

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
    """Return the indices in the leading dimension that hold a non-finite element.

    Args:
        values: any shape; a scalar has no leading dimension and hence no samples.
        limit: the most indices to return.

    Returns:
        The first ``limit`` indices, ascending; empty if every element is finite.

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
    """Return the indices of non-finite elements.

    Args:
        values: any shape.
        limit: the most elements to return.

    Returns:
        One index tuple for each of the first ``limit`` elements, in memory order. A non-finite scalar gives one empty
        tuple. Empty if every element is finite.

    Example:
        >>> bad_elements([[1.0, 2.0], [float("nan"), 3.0]], limit=8)
        ((1, 0),)
    """
    array = np.asarray(values)
    if not _can_be_nonfinite(array):
        return ()
    places = np.flatnonzero(~np.isfinite(array))[:limit]
    return tuple(tuple(int(index) for index in np.unravel_index(place, array.shape)) for place in places)


def kinds_of(norms: npt.ArrayLike) -> KindArray:
    """Return the kinds that a norm reveals: NAN for a NaN, INF (sign unknown) for an Inf, else 0.

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
    # The kind of ml_dtypes' bfloat16 and float8 is "V" or "f", depending on the version. np.isfinite accepts both.
    return array.dtype.kind in "fcV" and array.dtype.names is None
