"""Rules for inputs outside the domain of a function: logarithms, roots, powers, quotients, exponentials."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from tb_nanwatch.diagnosis.operations.ranges import (
    SMALLEST_NORMAL,
    largest,
    magnitude,
    nearest_to_zero,
    number,
    peak,
    share,
    zeros,
)
from tb_nanwatch.diagnosis.operations.rule import Case, Rule, in_phase, makes_nan, type_of
from tb_nanwatch.schema.records import Link

_NEGATIVE_LOG_FIX: Final = (
    "Keep its input above 0: tf.math.log(tf.maximum(x, {1e-7})). Adding a small number does not help. "
    "Find out why it is negative."
)
_SIGMOID_LOG_FIX: Final = (
    "Compute the logarithm and the sigmoid together: tf.math.log_sigmoid(x) of the sigmoid's input. With labels use "
    "tf.nn.sigmoid_cross_entropy_with_logits (from_logits=True in Keras)."
)
_SOFTMAX_LOG_FIX: Final = (
    "Compute the logarithm and the softmax together: tf.nn.log_softmax(x) of the softmax's input. With labels use "
    "tf.nn.softmax_cross_entropy_with_logits (from_logits=True in Keras)."
)
_LOG_FIX: Final = (
    "Keep its input above 0: tf.math.log(x + {1e-7}). For a loss of probabilities take "
    "tf.nn.softmax_cross_entropy_with_logits or tf.nn.sigmoid_cross_entropy_with_logits instead (from_logits=True in "
    "Keras)."
)
_LOG1P_FIX: Final = "Keep its input above -1: tf.math.log1p(tf.maximum(x, -1 + {1e-6}))."
_ROOT_FIX: Final = (
    "Keep its input above 0: tf.sqrt(tf.maximum(x, {1e-12})), not 0 itself, since the slope there is infinite. "
    "A variance taken as a difference of two means is negative by rounding: use tf.math.reduce_variance."
)
_NEGATIVE_RSQRT_FIX: Final = (
    "Do not let its input become negative, and add an epsilon: tf.math.rsqrt(tf.maximum(x, 0.0) + {1e-6})."
)
_RSQRT_FIX: Final = "Add an epsilon: tf.math.rsqrt(x + {1e-6})."
_NEGATIVE_BASE_FIX: Final = (
    "Keep the base above 0: tf.pow(tf.maximum(x, {1e-7}), p), or handle the sign separately: "
    "tf.sign(x) * tf.pow(tf.abs(x) + {1e-7}, p)."
)
_POWER_OF_ZERO_FIX: Final = "Keep the base away from 0: tf.pow(tf.where(tf.abs(x) < 1e-3, 1e-3, x), p)."
_DIVISION_FIX: Final = (
    "Divide with tf.math.divide_no_nan(x, y), or add an epsilon to the divisor. Inside tf.where make the divisor safe "
    "before dividing: the branch that is not taken has a slope as well."
)
_WHOLE_DIVISION_FIX: Final = "Make the divisor safe: take tf.where(y == 0, 1.0, y) in the place of y."
_PADDING_FIX: Final = (
    "Leave samples that are all padding out of the batch, or keep one step of each in the mask, such as a start token."
)
CLIP_FIX: Final = "Add an epsilon to the norm that the gradients are divided by, or use tf.clip_by_global_norm."
_UPDATE_FIX: Final = (
    "Raise the optimizer's epsilon (1e-8 is 0 in float16; 1e-3 is not), and where a learning-rate schedule divides by "
    "the step, let it divide by step + 1."
)
_POOLING_FILE: Final = "global_average_pooling1d.py"
_MARGIN: Final = 0.9
_DOMAINS: Final = {
    "Acos": (-1.0, 1.0),
    "Asin": (-1.0, 1.0),
    "Acosh": (1.0, math.inf),
    "Atanh": (-1.0, 1.0),
    "Erfinv": (-1.0, 1.0),
    "Ndtri": (0.0, 1.0),
}
_BOUNDS: Final = {
    "Acos": ("-1 + e", "1 - e"),
    "Asin": ("-1 + e", "1 - e"),
    "Acosh": ("1 + e", ""),
    "Atanh": ("-1 + e", "1 - e"),
    "Erfinv": ("-1 + e", "1 - e"),
    "Ndtri": ("e", "1 - e"),
}
"""Bounds for the elements, where e is a small number."""
_NAMES: Final = {
    "Acos": "tf.acos",
    "Asin": "tf.asin",
    "Acosh": "tf.acosh",
    "Atanh": "tf.atanh",
    "Erfinv": "tf.math.erfinv",
    "Ndtri": "tf.math.ndtri",
}
_EXPONENTIALS: Final = {"Exp": "tf.exp", "Expm1": "tf.math.expm1", "Sinh": "tf.sinh", "Cosh": "tf.cosh"}
_HYPERBOLIC: Final = frozenset({"Sinh", "Cosh"})
_OPEN: Final = frozenset({"Atanh", "Erfinv", "Ndtri"})
"""Functions that are infinite at the ends of their domain, which is therefore open."""


def _logarithm(link: Link) -> str | None:
    match type_of(link), link.inputs:
        case ("Log", (x, *_)) | ("Xlogy", (_, x, *_)) if x.min is not None and x.min < SMALLEST_NORMAL:
            answer = "a negative number is NaN" if x.min < 0 else "0 is -Inf"
            function = "Log" if type_of(link) == "Log" else "Logarithm"
            return f"{function} of a tensor whose minimum is {number(x.min)}{zeros(x)}: the logarithm of {answer}."
    return None


def _is_negative(case: Case) -> bool:
    lowest = [operand.min for operand in case.link.inputs[:2] if operand.min is not None]
    return bool(lowest) and lowest[-1 if type_of(case.link) == "Xlogy" else 0] < 0


def _is_output_of(operation: str) -> Callable[[Case], bool]:
    name = re.compile(rf"(?:.*/)?{operation}(?:_\d+)?(?::0)?")
    return lambda case: any(name.fullmatch(operand.name) for operand in case.link.inputs[-1:])


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
    return None


def _root_of_zero(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.min is not None and 0 <= x.min < SMALLEST_NORMAL:
            return f"Rsqrt of a tensor whose minimum is {number(x.min)}{zeros(x)}: 1 over the root of 0 is Inf."
    return None


def _negative_base(link: Link) -> str | None:
    match link.inputs:
        case (x, power, *_) if x.min is not None and power.min is not None:
            is_whole = power.min == power.max and float(power.min).is_integer()
            if x.min < 0 and makes_nan(link) and not is_whole:
                base = f"a tensor whose minimum is {number(x.min)}"
                return f"{_power(link)} of {base} {_exponents(link)}: that is no real number."
    return None


def _power_of_zero(link: Link) -> str | None:
    match link.inputs:
        case (x, power, *_) if x.zeros and power.min is not None and power.min < 0:
            held = f"{_power(link)} of a tensor that holds 0{zeros(x)} {_exponents(link)}"
            return f"{held}: 0 to a negative power is Inf."
    return None


def _power_overflow(link: Link) -> str | None:
    match link.inputs:
        case (x, power, *_) if power.max is not None and peak(x) > 1:
            if power.max * math.log(peak(x)) > math.log(largest(x.dtype)):
                return f"{_power(link)} of {magnitude(x)} {_exponents(link)} leaves the range of {x.dtype}."
    return None


def _power_overflow_fix(link: Link) -> str:
    base, power = link.inputs[:2]
    most = f"{_MARGIN * largest(base.dtype) ** (1 / max(power.max or 1.0, 1.0)):.1e}"
    return (
        f"Bound the base before the power is taken: tf.pow(tf.clip_by_value(x, -{most}, {most}), p). Or stay with the "
        "logarithm of the power, p * tf.math.log(x)."
    )


def _power(link: Link) -> str:
    return "The slope of Pow" if link.phase == "backward" else "Pow"


def _exponents(link: Link) -> str:
    """Return a phrase for the exponents in the program; the exponents in the slope are lower by 1."""
    power, difference = link.inputs[1], 1.0 if link.phase == "backward" else 0.0
    low = (power.min or 0.0) + difference
    high = low if power.max is None else power.max + difference
    return f"to the power of {number(low)}" if low == high else f"to powers from {number(low)} to {number(high)}"


def _division(link: Link) -> str | None:
    match link.inputs:
        case (x, y, *_) if y.zeros and type_of(link) != "DivNoNan":
            by = f"{type_of(link)} by a tensor that holds 0 ({share(y.zeros, y)})"
            return f"{by}: 0/0 is NaN." if makes_nan(link) and x.zeros else f"{by}."
    return None


def _small_divisor(link: Link) -> str | None:
    match link.inputs:
        case (x, y, *_) if nearest_to_zero(y) and peak(x) / largest(x.dtype) > nearest_to_zero(y):
            least = number(nearest_to_zero(y))
            return f"{type_of(link)} of {magnitude(x)} by values as small as {least} leaves the range of {x.dtype}."
    return None


def _small_divisor_fix(link: Link) -> str:
    x, y = link.inputs[:2]
    least = f"{max(1e-6, 2 * peak(x) / largest(x.dtype)):.1e}"
    sign = "-" if (y.max or 0.0) < 0 else ""
    bound = f"tf.minimum(y, -{least})" if sign else f"tf.maximum(y, {least})"
    return f"Keep the divisor away from 0: x / {bound}."


def _mean_of_padding(link: Link) -> str | None:
    if not any(source.file.endswith(_POOLING_FILE) for source in link.stack):
        return None
    match link.inputs:
        case (_, kept, *_) if kept.zeros:
            samples = f"{kept.zeros:,} of {kept.counts.size:,} samples"
            return (
                "GlobalAveragePooling1D takes the mean of the steps that the mask keeps. In "
                f"{samples} it keeps none: all of the sample is padding."
            )
    return None


def _reciprocal(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.zeros:
            return f"{type_of(link)} of a tensor that holds 0 ({share(x.zeros, x)})."
    return None


def _exponential(link: Link) -> str | None:
    is_hyperbolic = type_of(link) in _HYPERBOLIC
    match link.inputs:
        case (x, *_) if x.max is not None:
            limit = _exponential_limit(link)
            most = peak(x) if is_hyperbolic else x.max
            if most > limit:
                figure = "largest magnitude" if is_hyperbolic else "maximum"
                beyond = f"beyond {limit:.4g} it leaves the range of {x.dtype}"
                return f"{type_of(link)} of a tensor whose {figure} is {number(most)}; {beyond}."
    return None


def _exponential_limit(link: Link) -> float:
    limit = math.log(largest(link.inputs[0].dtype))
    return limit + math.log(2) if type_of(link) in _HYPERBOLIC else limit


def _exponential_fix(link: Link) -> str:
    most = math.floor(_MARGIN * _exponential_limit(link))
    function = _EXPONENTIALS[type_of(link)]
    bounded = f"tf.clip_by_value(x, -{most}, {most})" if type_of(link) in _HYPERBOLIC else f"tf.minimum(x, {most})"
    return (
        f"Bound what goes into it: {function}({bounded}). Or stay with logarithms: tf.nn.log_softmax, "
        "tf.reduce_logsumexp and tf.nn.softplus do not leave the range."
    )


def _any_division(link: Link) -> str | None:
    if type_of(link) in _INVERSES:
        return _reciprocal(link)
    return _division(link) or _small_divisor(link)


def _outside(link: Link) -> str | None:
    low, high = _DOMAINS[type_of(link)]
    match link.inputs:
        case (x, *_) if x.min is not None and x.max is not None:
            is_at_end = type_of(link) in _OPEN and (x.min <= low or x.max >= high)
            if is_at_end or x.min < low or x.max > high:
                ends = f"{_precise(x.min, low)} to {_precise(x.max, high)}"
                reach_phrase = f"{type_of(link)} of a tensor whose elements reach from {ends}"
                return f"{reach_phrase}; it is defined {_domain_phrase(type_of(link))}."
    return None


def _precise(value: float, end: float) -> str:
    """Format a number so that rounding does not move it to the end of the domain."""
    short = number(value)
    return f"{value:.9g}" if float(short) == end != value else short


def _domain_phrase(function: str) -> str:
    low, high = map(number, _DOMAINS[function])
    if high == "inf":
        return f"from {low} on"
    return f"between {low} and {high}" if function in _OPEN else f"from {low} to {high}"


def _outside_fix(link: Link) -> str:
    function = type_of(link)
    low, high = (end.replace("e", "{1e-6}") for end in _BOUNDS[function])
    bounded = f"tf.clip_by_value(x, {low}, {high})" if high else f"tf.maximum(x, {low})"
    return (
        f"Clip what goes into it, a little inside the ends, where its slope is infinite: {_NAMES[function]}({bounded})."
    )


_LOGARITHMS: Final = frozenset({"Log", "Xlogy"})
_DIVISIONS: Final = frozenset({"RealDiv", "Div", "DivNoNan", "Xdivy"})
_WHOLE_DIVISIONS: Final = frozenset({"FloorDiv", "TruncateDiv", "FloorMod", "Mod"})
_INVERSES: Final = frozenset({"Reciprocal", "Inv"})
_POW: Final = frozenset({"Pow"})

RULES: Final = (
    Rule("logarithm-of-zero", _LOGARITHMS, _logarithm, _NEGATIVE_LOG_FIX, _is_negative),
    Rule("logarithm-of-zero", _LOGARITHMS, _logarithm, _SIGMOID_LOG_FIX, _is_output_of("Sigmoid")),
    Rule("logarithm-of-zero", _LOGARITHMS, _logarithm, _SOFTMAX_LOG_FIX, _is_output_of("Softmax")),
    Rule("logarithm-of-zero", _LOGARITHMS, _logarithm, _LOG_FIX),
    Rule("logarithm-of-zero", frozenset({"Log1p", "Xlog1py"}), _log1p, _LOG1P_FIX),
    Rule("negative-root", frozenset({"Sqrt"}), _root, _ROOT_FIX),
    Rule("root-of-zero", frozenset({"Rsqrt"}), _root, _NEGATIVE_RSQRT_FIX),
    Rule("root-of-zero", frozenset({"Rsqrt"}), _root_of_zero, _RSQRT_FIX),
    Rule("power", _POW, _negative_base, _NEGATIVE_BASE_FIX),
    Rule("power", _POW, _power_of_zero, _POWER_OF_ZERO_FIX),
    Rule("power", _POW, _power_overflow, _power_overflow_fix),
    Rule("all-padding", frozenset({"RealDiv"}), _mean_of_padding, _PADDING_FIX),
    Rule("division-by-zero", _DIVISIONS | _INVERSES, _any_division, CLIP_FIX, in_phase("clip")),
    Rule("division-by-zero", _DIVISIONS | _INVERSES, _any_division, _UPDATE_FIX, in_phase("update")),
    Rule("division-by-zero", _DIVISIONS | _WHOLE_DIVISIONS, _small_divisor, _small_divisor_fix),
    Rule("division-by-zero", _DIVISIONS, _division, _DIVISION_FIX),
    Rule("division-by-zero", _WHOLE_DIVISIONS, _division, _WHOLE_DIVISION_FIX),
    Rule("division-by-zero", _INVERSES, _reciprocal, "Take tf.math.divide_no_nan(1.0, x), or add an epsilon to x."),
    Rule("exponential-overflow", frozenset(_EXPONENTIALS), _exponential, _exponential_fix),
    Rule("outside-domain", frozenset(_DOMAINS), _outside, _outside_fix),
)
