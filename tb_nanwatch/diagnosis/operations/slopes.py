"""Rules for the slopes of functions: a finite function may have an infinite slope, as a square root has at 0."""

from __future__ import annotations

from typing import Final

from tb_nanwatch.diagnosis.operations.ranges import largest, number, peak, share
from tb_nanwatch.diagnosis.operations.rule import Rule, type_of
from tb_nanwatch.schema.records import Link

_WHERE: Final = (
    "tf.where has a slope in the branch that it does not take, too: make that branch's input safe as well, "
    "tf.where(ok, f(tf.where(ok, x, 1.0)), 0.0)."
)
_ROOT_FIX: Final = (
    "Add an epsilon inside the root: tf.sqrt(x + {1e-12}). A norm is such a root, and its slope at the zero vector is "
    f"not finite: tf.sqrt(tf.reduce_sum(tf.square(x), axis=-1) + {{1e-12}}). {_WHERE}"
)
_RSQRT_FIX: Final = f"Add a larger epsilon inside the root: tf.math.rsqrt(x + {{1e-6}}). {_WHERE}"
_POWER_FIX: Final = f"Add an epsilon to the base: tf.pow(x + {{1e-7}}, p). {_WHERE}"
_RECIPROCAL_FIX: Final = (
    f"Add an epsilon to the divisor, or to the argument of the logarithm or root, at the named line. {_WHERE}"
)


def _root_at_zero(link: Link) -> str | None:
    match link.inputs:
        case (root, _, *_) if root.zeros:
            return f"The slope of a square root at 0: its output holds 0 ({share(root.zeros, root)})."
        case (root, slope, *_) if root.min is not None and 0 < root.min < peak(slope) / (2 * largest(root.dtype)):
            return f"The slope of a square root near 0: its output is as small as {number(root.min)}."
    return None


def _inverse_root_near_zero(link: Link) -> str | None:
    match link.inputs:
        case (root, slope, *_) if peak(root) * peak(root) * peak(root) * peak(slope) / 2 > largest(root.dtype):
            return f"The slope of 1 over a square root near 0: its output is as large as {number(peak(root))}."
    return None


def _inverse_near_zero(link: Link) -> str | None:
    match link.inputs:
        case (inverse, slope, *_) if peak(inverse) * peak(inverse) * peak(slope) > largest(inverse.dtype):
            return f"The slope of 1/x near 0: its output is as large as {number(peak(inverse))}."
    return None


def _power_at_zero(link: Link) -> str | None:
    match link.inputs:
        case (x, power, *_) if link.phase == "backward" and x.zeros and power.min is not None and power.min < 0:
            held = f"its base holds 0 ({share(x.zeros, x)})"
            return (
                f"The slope of a power below 1 at 0: {held}, which the slope takes to the power of {number(power.min)}."
            )
    return None


def _reciprocal_at_zero(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if link.phase == "backward" and x.zeros:
            return (
                f"The slope of a function at 0 is 1/0: {type_of(link)} of a tensor that holds 0 ({share(x.zeros, x)})."
            )
    return None


def _quotient_at_zero(link: Link) -> str | None:
    match link.inputs:
        case (_, y, *_) if link.phase == "backward" and y.zeros:
            by = f"{type_of(link)} by a tensor that holds 0 ({share(y.zeros, y)})"
            return f"The slope of a function at 0 is a division by 0: {by}."
    return None


RULES: Final = (
    Rule("slope-at-zero", frozenset({"SqrtGrad"}), _root_at_zero, _ROOT_FIX),
    Rule("slope-at-zero", frozenset({"RsqrtGrad"}), _inverse_root_near_zero, _RSQRT_FIX),
    Rule("slope-at-zero", frozenset({"ReciprocalGrad", "InvGrad"}), _inverse_near_zero, _RECIPROCAL_FIX),
    Rule("slope-at-zero", frozenset({"Pow"}), _power_at_zero, _POWER_FIX),
    Rule("slope-at-zero", frozenset({"Reciprocal", "Inv"}), _reciprocal_at_zero, _RECIPROCAL_FIX),
    Rule("slope-at-zero", frozenset({"RealDiv", "Div", "Xdivy"}), _quotient_at_zero, _RECIPROCAL_FIX),
)
