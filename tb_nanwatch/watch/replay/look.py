"""A look: what one run of one operation was given and what it made, where that was not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.numerics.finiteness import MOST_SAMPLES, bad_samples, count_nonfinite
from tb_nanwatch.schema.records import Counts

SWALLOWERS: Final = frozenset(
    {"Maximum", "Minimum", "Max", "Min", "Relu", "Relu6", "MaxPool", "MaxPoolV2", "MaxPool3D", "ClipByValue"}
)
"""Operations that make a number of NaN without anybody having asked for it, as ``tf.where`` is asked."""
_FUSED_BATCH_NORM: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_FUSED_BATCH_NORM_GRAD: Final = frozenset({"FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3"})
_SCRATCH: Final = 5
"""The place of fused batch norm's third reserve: scratch memory of the kernel, whose content means nothing."""
_LARGE: Final = 1 << 16
Arrays = Mapping[int, npt.NDArray[Any]]


@dataclass(frozen=True)
class Range:
    """What can be said of a tensor's elements.

    Attributes:
        dtype: NumPy's name of it.
        shape: of the value.
        counts: exact.
        min: of the finite elements; ``None`` where there is none, or where it was not looked for.
        max: likewise.
        zeros: how many elements are 0.
    """

    dtype: str
    shape: tuple[int, ...]
    counts: Counts
    min: float | None
    max: float | None
    zeros: int


@dataclass(frozen=True, eq=False)
class Look:
    """One run of one operation in which something was not finite.

    Attributes:
        moment: when: of two looks where one fed the other, the later has the higher number.
        inputs: by place, the inputs that were not finite.
        outputs: by place, the outputs that were not finite, and how many elements of each.
        samples: the bad indices in the leading dimension of the first bad output.
        leading: the size of that dimension; 0 for a scalar.
        ranges: by place, of the inputs that are numbers; of large ones only where the operation was the first.
        swallowed: whether a NaN that came in did not come out.
        lost: the indices in the leading dimension of the first bad output at which every element is NaN.
    """

    moment: int
    inputs: frozenset[int]
    outputs: Mapping[int, Counts]
    samples: tuple[int, ...]
    leading: int
    ranges: Mapping[int, Range]
    swallowed: bool
    lost: tuple[int, ...] = ()


def look_at(kind: str, inputs: Arrays, outputs: Arrays, *, moment: int) -> Look | None:
    """Look at one run of an operation.

    Args:
        kind: the operation's type.
        inputs: by place, those that are numbers; any shape.
        outputs: by place, those that are floating or complex.
        moment: see :class:`Look`.

    Returns:
        ``None`` where there is nothing to keep. An operation without such outputs writes a variable; it is kept always,
        because what it makes of finite inputs is seen only by whoever reads the variable.
    """
    if kind in _FUSED_BATCH_NORM:
        outputs = {place: array for place, array in outputs.items() if place < _SCRATCH}
    bad_out = {place: array for place, array in outputs.items() if not _is_finite(array)}
    if not bad_out and outputs and kind not in SWALLOWERS:
        return None
    bad_in = {place for place, array in inputs.items() if not _is_finite(array)}
    if kind in _FUSED_BATCH_NORM_GRAD:
        bad_in.discard(_SCRATCH)
    swallowed = kind in SWALLOWERS and not bad_out and any(np.isnan(inputs[place]).any() for place in bad_in)
    if not bad_out and outputs and not swallowed:
        return None
    is_first = not bad_in
    first = next(iter(bad_out.values()), None)
    return Look(
        moment=moment,
        inputs=frozenset(bad_in),
        outputs={place: count_nonfinite(array) for place, array in bad_out.items()},
        samples=() if first is None else bad_samples(first),
        leading=0 if first is None or first.ndim == 0 else len(first),
        ranges={place: range_of(array) for place, array in inputs.items() if is_first or array.size <= _LARGE},
        swallowed=swallowed,
        lost=() if first is None else lost_samples(first),
    )


def lost_samples(array: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return the indices in the leading dimension at which every element is NaN, the first of them."""
    if array.ndim == 0 or not array.size:
        return ()
    return tuple(int(at) for at in np.flatnonzero(np.isnan(array).reshape(len(array), -1).all(axis=1))[:MOST_SAMPLES])


def range_of(array: npt.NDArray[Any]) -> Range:
    """Return what can be said of an array's elements; a complex one has no smallest."""
    counts = count_nonfinite(array)
    shape = tuple(int(size) for size in array.shape)
    finite = array if not counts.nonfinite else array[np.isfinite(array)]
    least = greatest = None
    if finite.size and array.dtype.kind != "c":
        least, greatest = float(finite.min()), float(finite.max())
    return Range(str(array.dtype), shape, counts, least, greatest, array.size - int(np.count_nonzero(array)))


def _is_finite(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind in "iub" or bool(np.isfinite(array).all())
