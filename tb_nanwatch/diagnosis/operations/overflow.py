"""Rules for operations that overflow their dtype although their inputs are finite.

Each operation has an upper bound for the magnitude of its result. If the bound is within the range of the dtype, the
operation cannot have overflowed, and the rule does not apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from tb_nanwatch.diagnosis.operations.ranges import largest, magnitude, number, peak
from tb_nanwatch.diagnosis.operations.rule import Case, Rule, in_phase, is_half, type_of
from tb_nanwatch.schema.records import Link, Operand

Given = Sequence[Operand]
Bound = Callable[[Given], float]

_HALF_BACKWARD: Final = (
    "Lower the loss scale, or use a dynamic one (keras.mixed_precision.LossScaleOptimizer), which lowers itself when a "
    "gradient leaves the range of float16, or use bfloat16, whose range is that of float32."
)
_HALF: Final = "Compute this in float32 (tf.cast before it), or use bfloat16, whose range is that of float32."
_CAST: Final = (
    "Cast after the values were brought into the range: scale or clip them in the wider dtype first, or use bfloat16, "
    "whose range is that of float32."
)
CLIP_FIX: Final = (
    "Divide the gradients by their largest element before their norm is taken, or clip by value first; then find out "
    "why they are so large."
)
_AT_START: Final = (
    "No update came before, so the values are large from the start: scale the inputs, take a smaller initializer, or "
    "normalise what goes into this operation."
)
_CONSTANT_CAST: Final = (
    "A constant such as a mask's must fit float16: take a smaller one, tf.cast(tf.float16.min / 2, tf.float16)."
)
_LARGE: Final = (
    "Find out why the values are so large: lower the learning rate, clip the gradients by their global norm, "
)
_SQUARE: Final = f"{_LARGE}or take a loss that grows more slowly than a square (tf.keras.losses.Huber)."
_OTHER: Final = f"{_LARGE}or normalise what goes into this operation."


def _overflow(link: Link) -> str | None:
    given = [operand for operand in link.inputs if operand.dtype not in _WHOLE_NUMBERS]
    if not given or any(operand.counts.nonfinite for operand in given):
        return None
    dtype = given[0].dtype
    if not BOUNDS[type_of(link)](given) > largest(dtype):
        return None
    inputs = " and ".join(magnitude(operand) for operand in given[:2])
    return f"{type_of(link)} of {inputs} leaves the range of {dtype} (up to {number(largest(dtype))})."


def _is_half_backward(case: Case) -> bool:
    return is_half(case) and case.link.phase == "backward"


def _is_first_step(case: Case) -> bool:
    return case.is_first_step


def _is_one_number(case: Case) -> bool:
    x = case.link.inputs[:1]
    return bool(x) and x[0].min == x[0].max and peak(x[0]) > largest("float16")


def _size(given: Given) -> int:
    return max(operand.counts.size for operand in given)


def _square(given: Given) -> float:
    largest_sum = sum(map(peak, given))
    return largest_sum * largest_sum


def _sum_of_squares(given: Given) -> float:
    return _square(given[:1]) * given[0].counts.size


def _product(given: Given) -> float:
    return math.prod(map(peak, given))


def _contraction(given: Given) -> float:
    return _product(given[:2]) * _size(given[:2])


def _sum(given: Given) -> float:
    return sum(map(peak, given))


def _reduction(given: Given) -> float:
    return peak(given[0]) * given[0].counts.size


def _long_product(given: Given) -> float:
    return math.inf if peak(given[0]) > 1 and given[0].counts.size > 1 else peak(given[0])


_WHOLE_NUMBERS: Final = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"})
SQUARES: Final[dict[str, Bound]] = {
    "Square": _square,
    "SquaredDifference": _square,
    "L2Loss": _sum_of_squares,
    "EuclideanNorm": _sum_of_squares,
}
PRODUCTS: Final[dict[str, Bound]] = {
    **dict.fromkeys(["Mul", "MulNoNan"], _product),
    **dict.fromkeys(["Prod", "Cumprod"], _long_product),
    **dict.fromkeys(["MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"], _contraction),
    **dict.fromkeys(["Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"], _contraction),
    **dict.fromkeys(["Conv3D", "Conv3DBackpropInputV2", "Conv3DBackpropFilterV2"], _contraction),
    "DepthwiseConv2dNative": _contraction,
    "DepthwiseConv2dNativeBackpropInput": _contraction,
    "DepthwiseConv2dNativeBackpropFilter": _contraction,
}
SUMS: Final[dict[str, Bound]] = {
    **dict.fromkeys(["Add", "AddV2", "AddN", "AccumulateNV2", "Sub", "BiasAdd"], _sum),
    **dict.fromkeys(["Sum", "Mean", "Cumsum", "BiasAddGrad", "AvgPool"], _reduction),
    **dict.fromkeys(["SegmentSum", "UnsortedSegmentSum", "SegmentMean", "SparseSegmentSum"], _reduction),
}
BOUNDS: Final[dict[str, Bound]] = SQUARES | PRODUCTS | SUMS


def _narrowing(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.dtype in {"float32", "float64"} and not x.counts.nonfinite:
            narrower = [dtype for dtype in ("float32", "float16") if largest(dtype) < peak(x)]
            if narrower:
                limit = number(largest(narrower[0]))
                return f"Cast of {magnitude(x)} to {narrower[0]}, whose range ends at {limit}."
    return None


def _large_variance(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if peak(x) * peak(x) > largest("float32"):
            return f"The variance of {magnitude(x)} leaves the range of float32 (up to {number(largest('float32'))})."
    return None


def _negative_variance(link: Link) -> str | None:
    match link.inputs:
        case (_, _, _, _, variance, *_) if variance.min is not None and variance.min < 0:
            return f"The variance that {type_of(link)} was given is negative: its minimum is {number(variance.min)}."
    return None


def _overflow_rules(identity: str, operations: Mapping[str, Bound]) -> Iterator[Rule]:
    fixes = (
        (_HALF_BACKWARD, _is_half_backward),
        (_HALF, is_half),
        (CLIP_FIX, in_phase("clip")),
        (_AT_START, _is_first_step),
        *([(_SQUARE, in_phase("forward", "loss"))] if operations is SQUARES else []),
        (_OTHER, lambda _: True),
    )
    for fix, applies in fixes:
        yield Rule(identity, frozenset(operations), _overflow, fix, applies)


_BATCH_NORMS: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})

RULES: Final = (
    *_overflow_rules("square-overflow", SQUARES),
    *_overflow_rules("product-overflow", PRODUCTS),
    *_overflow_rules("sum-overflow", SUMS),
    Rule("cast-overflow", frozenset({"Cast"}), _narrowing, _CONSTANT_CAST, _is_one_number),
    Rule("cast-overflow", frozenset({"Cast"}), _narrowing, _CAST),
    Rule("batch-norm-overflow", _BATCH_NORMS, _large_variance, _AT_START, _is_first_step),
    Rule("batch-norm-overflow", _BATCH_NORMS, _large_variance, f"{_LARGE}or normalise earlier."),
    Rule(
        "batch-norm-overflow",
        _BATCH_NORMS,
        _negative_variance,
        "Find out what sets the moving variance: it must not be below 0.",
    ),
)
