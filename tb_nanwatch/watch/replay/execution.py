"""One run of one operation in which a value was not finite: what the operation was given and what it returned."""

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
"""Operations that may return a number for NaN although the program did not ask for it, as ``tf.where`` does."""
_FUSED_BATCH_NORM: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_FUSED_BATCH_NORM_GRAD: Final = frozenset({"FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3"})
_SCRATCH: Final = 5
"""The place of fused batch norm's third reserve: scratch memory of the kernel, whose content has no meaning."""
_LARGE: Final = 1 << 16
Arrays = Mapping[int, npt.NDArray[Any]]


@dataclass(frozen=True)
class Range:
    """The range of a tensor's elements.

    Attributes:
        dtype: NumPy's name of it.
        shape: the shape of the value.
        counts: exact counts of the non-finite elements.
        min: the smallest finite element; ``None`` where no element is finite, and for complex numbers.
        max: the largest finite element; ``None`` likewise.
        zeros: how many elements are 0.
    """

    dtype: str
    shape: tuple[int, ...]
    counts: Counts
    min: float | None
    max: float | None
    zeros: int


@dataclass(frozen=True, eq=False)
class Execution:
    """One run of one operation in which a value was not finite.

    Attributes:
        moment: its time: of two executions where one fed the other, the later has the higher number.
        inputs: the places of the inputs that were not finite.
        outputs: by place, the counts of each output that was not finite.
        samples: the bad indices in the leading dimension of the first bad output.
        leading: the size of that dimension; 0 for a scalar.
        ranges: by place, the range of each numeric input; of a large input only where all inputs were finite.
        swallowed: whether a NaN came in and no output was non-finite.
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

    @property
    def has_nan(self) -> bool:
        """Whether an output held NaN."""
        return any(counts.nan for counts in self.outputs.values())


def execution_of(kind: str, inputs: Arrays, outputs: Arrays, *, moment: int) -> Execution | None:
    """Return the execution of an operation that has run.

    Args:
        kind: the operation's type.
        inputs: by place, the numeric inputs; any shape.
        outputs: by place, the floating or complex outputs.
        moment: see :class:`Execution`.

    Returns:
        ``None`` where all outputs were finite. An operation without such outputs writes a variable. Its execution is
        always returned, because only a later read of the variable shows what the operation wrote.
    """
    if kind in _FUSED_BATCH_NORM:
        outputs = {place: array for place, array in outputs.items() if place < _SCRATCH}
    bad_outputs = {place: array for place, array in outputs.items() if not _is_finite(array)}
    if not bad_outputs and outputs and kind not in SWALLOWERS:
        return None
    bad_inputs = {place for place, array in inputs.items() if not _is_finite(array)}
    if kind in _FUSED_BATCH_NORM_GRAD:
        bad_inputs.discard(_SCRATCH)
    swallowed = kind in SWALLOWERS and not bad_outputs and any(np.isnan(inputs[place]).any() for place in bad_inputs)
    if not bad_outputs and outputs and not swallowed:
        return None
    first = next(iter(bad_outputs.values()), None)
    return Execution(
        moment=moment,
        inputs=frozenset(bad_inputs),
        outputs={place: count_nonfinite(array) for place, array in bad_outputs.items()},
        samples=() if first is None else bad_samples(first),
        leading=0 if first is None or first.ndim == 0 else len(first),
        ranges={place: range_of(array) for place, array in inputs.items() if not bad_inputs or array.size <= _LARGE},
        swallowed=swallowed,
        lost=() if first is None else lost_samples(first),
    )


def execution_of_write(values: Arrays, *, is_constant: bool) -> Execution | None:
    """Return the execution of an operation outside the step that wrote a variable; ``None`` if its values were finite.

    Args:
        values: by place, the values that it was given.
        is_constant: whether all of them are constants of the graph, so that no operation lies behind them.
    """
    ranges = {place: range_of(array) for place, array in values.items()}
    bad = {place: found.counts for place, found in ranges.items() if found.counts.nonfinite}
    if not bad:
        return None
    inputs = frozenset[int]() if is_constant else frozenset(bad)
    return Execution(-1, inputs, {0: next(iter(bad.values()))}, (), 0, ranges, swallowed=False)


def lost_samples(array: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return the first of the indices in the leading dimension at which every element is NaN."""
    if array.ndim == 0 or not array.size:
        return ()
    return tuple(int(at) for at in np.flatnonzero(np.isnan(array).reshape(len(array), -1).all(axis=1))[:MOST_SAMPLES])


def range_of(array: npt.NDArray[Any]) -> Range:
    """Return the range of an array's elements; a complex array has no smallest element."""
    counts = count_nonfinite(array)
    shape = tuple(int(size) for size in array.shape)
    finite = array if not counts.nonfinite else array[np.isfinite(array)]
    least = greatest = None
    if finite.size and array.dtype.kind != "c":
        least, greatest = float(finite.min()), float(finite.max())
    return Range(str(array.dtype), shape, counts, least, greatest, array.size - int(np.count_nonzero(array)))


def _is_finite(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind in "iub" or bool(np.isfinite(array).all())
