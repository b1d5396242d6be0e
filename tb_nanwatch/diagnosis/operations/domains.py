"""Functions that were given what they are not defined for: logarithms, roots, powers, quotients, exponentials."""

from __future__ import annotations

import math
from typing import Final

from tb_nanwatch.diagnosis.operations.ranges import (
    SMALLEST_NORMAL,
    largest,
    magnitude,
    nearest_to_zero,
    number,
    reach,
    share,
    zeros,
)
from tb_nanwatch.diagnosis.operations.rule import Rule, type_of
from tb_nanwatch.schema.records import Link

_LOG_FIX: Final = (
    "Keep what goes into it above 0: tf.math.log(x + 1e-7) or tf.math.log(tf.maximum(x, 1e-7)). Instead of the "
    "logarithm of a softmax or sigmoid take tf.nn.log_softmax or tf.nn.softmax_cross_entropy_with_logits "
    "(from_logits=True in Keras)."
)
_LOG1P_FIX: Final = "Keep what goes into it above -1: tf.math.log1p(tf.maximum(x, -1 + 1e-6))."
_ROOT_FIX: Final = (
    "Keep what goes into it above 0: tf.sqrt(tf.maximum(x, 1e-12)), not 0 itself, since the slope there is infinite. A "
    "variance taken as a difference of two means is negative by rounding: use tf.math.reduce_variance."
)
_RSQRT_FIX: Final = (
    "Add an epsilon, and keep what goes into it from being negative: tf.math.rsqrt(tf.maximum(x, 0.0) + 1e-6)."
)
_POWER_FIX: Final = (
    "Keep the base above 0: tf.pow(tf.maximum(x, 1e-7), p), or tf.sign(x) * tf.pow(tf.abs(x) + 1e-7, p)."
)
_DIVISION_FIX: Final = (
    "Divide with tf.math.divide_no_nan, or add an epsilon to the divisor. Inside tf.where make the divisor safe before "
    "dividing: the branch that is not taken has a slope as well."
)
_CLIP_FIX: Final = "Add an epsilon to the norm that the gradients are divided by, or use tf.clip_by_global_norm."
_UPDATE_FIX: Final = (
    "Raise the optimizer's epsilon (1e-8 is 0 in float16; 1e-3 is not), and where a learning-rate schedule divides by "
    "the step, let it divide by step + 1."
)
_EXP_FIX: Final = (
    "Clip what goes into it (tf.clip_by_value), or stay with logarithms: tf.nn.log_softmax, tf.reduce_logsumexp and "
    "tf.nn.softplus do not leave the range."
)
_DOMAINS: Final = {
    "Acos": (-1.0, 1.0),
    "Asin": (-1.0, 1.0),
    "Acosh": (1.0, math.inf),
    "Atanh": (-1.0, 1.0),
    "Erfinv": (-1.0, 1.0),
    "Ndtri": (0.0, 1.0),
}
_OPEN: Final = frozenset({"Atanh", "Erfinv", "Ndtri"})
"""Functions that are infinite at the ends of their domain."""


def _logarithm(link: Link) -> str | None:
    match type_of(link), link.inputs:
        case ("Log", (x, *_)) | ("Xlogy", (_, x, *_)) if x.min is not None and x.min < SMALLEST_NORMAL:
            answer = "a negative number is NaN" if x.min < 0 else "0 is -Inf"
            of = "Log" if type_of(link) == "Log" else "Logarithm"
            return f"{of} of a tensor whose minimum is {number(x.min)}{zeros(x)}: the logarithm of {answer}."
    return None


def _log1p(link: Link) -> str | None:
    match type_of(link), link.inputs:
        case ("Log1p", (x, *_)) | ("Xlog1py", (_, x, *_)) if x.min is not None and x.min <= -1:
            return f"Log1p of a tensor whose minimum is {number(x.min)}; it is defined above -1."
    return None


def _root(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.min is not None and x.min < 0:
            return (
                f"{type_of(link)} of a tensor whose minimum is {number(x.min)}: the root of a negative number is NaN."
            )
        case (x, *_) if type_of(link) == "Rsqrt" and x.min is not None and x.min < SMALLEST_NORMAL:
            return f"Rsqrt of a tensor whose minimum is {number(x.min)}{zeros(x)}: 1 over the root of 0 is Inf."
    return None


def _power(link: Link) -> str | None:
    match link.inputs:
        case (x, power, *_) if x.min is not None and power.min is not None:
            highest = power.min if power.max is None else power.max
            exponents = _spoken_exponents(power.min, highest)
            is_whole = power.min == highest and float(power.min).is_integer()
            if x.min < 0 and link.kind == "nan" and not is_whole:
                return f"Pow of a tensor whose minimum is {number(x.min)} {exponents}: that is no real number."
            if x.zeros and power.min < 0:
                return f"Pow of a tensor that holds 0{zeros(x)} {exponents}: 0 to a negative power is Inf."
            if reach(x) > 1 and highest * math.log(reach(x)) > math.log(largest(x.dtype)):
                return f"Pow of {magnitude(x)} {exponents} leaves the range of {x.dtype}."
    return None


def _spoken_exponents(low: float, high: float) -> str:
    return f"to the power of {number(low)}" if low == high else f"to powers from {number(low)} to {number(high)}"


def _division(link: Link) -> str | None:
    match link.inputs:
        case (x, y, *_) if y.zeros and type_of(link) != "DivNoNan":
            by = f"{type_of(link)} by a tensor that holds 0 ({share(y.zeros, y)})"
            return f"{by}: 0/0 is NaN." if link.kind == "nan" and x.zeros else f"{by}."
        case (x, y, *_) if nearest_to_zero(y) and reach(x) / largest(x.dtype) > nearest_to_zero(y):
            least = number(nearest_to_zero(y))
            return f"{type_of(link)} of {magnitude(x)} by values as small as {least} leaves the range of {x.dtype}."
    return None


def _division_fix(link: Link) -> str:
    return {"clip": _CLIP_FIX, "update": _UPDATE_FIX}.get(link.phase, _DIVISION_FIX)


def _reciprocal(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.zeros:
            return f"{type_of(link)} of a tensor that holds 0 ({share(x.zeros, x)})."
    return None


def _exponential(link: Link) -> str | None:
    is_hyperbolic = type_of(link) in {"Sinh", "Cosh"}
    match link.inputs:
        case (x, *_) if x.max is not None:
            limit = math.log(largest(x.dtype)) + (math.log(2) if is_hyperbolic else 0.0)
            most = reach(x) if is_hyperbolic else x.max
            if most > limit:
                figure = "largest magnitude" if is_hyperbolic else "maximum"
                beyond = f"beyond {limit:.4g} it leaves the range of {x.dtype}"
                return f"{type_of(link)} of a tensor whose {figure} is {number(most)}; {beyond}."
    return None


def _outside(link: Link) -> str | None:
    low, high = _DOMAINS[type_of(link)]
    match link.inputs:
        case (x, *_) if x.min is not None and x.max is not None:
            is_at_end = type_of(link) in _OPEN and (x.min <= low or x.max >= high)
            if is_at_end or x.min < low or x.max > high:
                ends = f"{_precise(x.min, low)} to {_precise(x.max, high)}"
                of = f"{type_of(link)} of a tensor whose elements reach from {ends}"
                return f"{of}; it is defined {_spoken_domain(type_of(link))}."
    return None


def _precise(value: float, end: float) -> str:
    """Spell a number so that it stands on its own side of an end of the domain."""
    short = number(value)
    return f"{value:.9g}" if float(short) == end != value else short


def _spoken_domain(function: str) -> str:
    low, high = map(number, _DOMAINS[function])
    if high == "inf":
        return f"from {low} on"
    return f"between {low} and {high}" if function in _OPEN else f"from {low} to {high}"


RULES: Final = (
    Rule("logarithm-of-zero", frozenset({"Log", "Xlogy"}), _logarithm, _LOG_FIX),
    Rule("logarithm-of-zero", frozenset({"Log1p", "Xlog1py"}), _log1p, _LOG1P_FIX),
    Rule("negative-root", frozenset({"Sqrt"}), _root, _ROOT_FIX),
    Rule("root-of-zero", frozenset({"Rsqrt"}), _root, _RSQRT_FIX),
    Rule("power", frozenset({"Pow"}), _power, _POWER_FIX),
    Rule(
        "division-by-zero",
        frozenset({"RealDiv", "Div", "DivNoNan", "Xdivy", "FloorDiv", "TruncateDiv", "FloorMod", "Mod"}),
        _division,
        _division_fix,
    ),
    Rule("division-by-zero", frozenset({"Reciprocal", "Inv"}), _reciprocal, _division_fix),
    Rule("exponential-overflow", frozenset({"Exp", "Expm1", "Sinh", "Cosh"}), _exponential, _EXP_FIX),
    Rule(
        "outside-domain",
        frozenset(_DOMAINS),
        _outside,
        "Clip what goes into it, a little inside the ends, where its slope is infinite: "
        "tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6) for a function that is defined from -1 to 1.",
    ),
)
