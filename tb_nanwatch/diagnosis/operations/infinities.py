"""Rules for intended infinities and for operations without a finite result: masks, constants, empty tensors, labels."""

from __future__ import annotations

from typing import Final

from tb_nanwatch.diagnosis.operations.ranges import count_inf, number, share
from tb_nanwatch.diagnosis.operations.rule import Case, Rule, in_phase, makes_nan, type_of
from tb_nanwatch.diagnosis.sentences import KINDS
from tb_nanwatch.schema.records import Link, Operand

_MASK: Final = "a large finite number instead of -Inf: {mask}"
_ZERO_FIX: Final = (
    "Choose with tf.where instead of multiplying by a mask of 0 and 1, or multiply with "
    "tf.math.multiply_no_nan(x, y), where y is the mask."
)
_MATRIX_FIX: Final = (
    "Take Inf out before the product: tf.where(tf.math.is_finite(x), x, 0.0) in the place of x. Then find its origin."
)
_HALF_CONSTANT_FIX: Final = (
    "A constant such as -1e10 is -Inf in float16, whose range ends at 65,504. Take a smaller one, "
    "x * (tf.float16.min / 2), or choose with tf.where."
)
_WHERE_FIX: Final = (
    "tf.where multiplies the slope of the branch that it does not take by 0: make that branch's input safe as well, "
    "tf.where(ok, f(tf.where(ok, x, 1.0)), 0.0)."
)


def _zero_times_inf(link: Link) -> str | None:
    match link.inputs:
        case (a, b, *_) if makes_nan(link) and not a.counts.nan + b.counts.nan:
            for factor, other in ((a, b), (b, a)):
                if count_inf(factor) and other.zeros:
                    held = f"one factor holds Inf ({share(count_inf(factor), factor)})"
                    return f"{type_of(link)} of 0 and Inf is NaN: {held}, the other 0 ({share(other.zeros, other)})."
    return None


def _is_half_constant(case: Case) -> bool:
    """Return whether a factor is a scalar that is Inf in float16."""
    numbers = [operand for operand in case.link.inputs if operand.dtype == "float16" and not operand.shape]
    return any(count_inf(operand) for operand in numbers)


def _inf_minus_inf(link: Link) -> str | None:
    if not makes_nan(link) or any(operand.counts.nan for operand in link.inputs):
        return None
    signs = [_signs(operand) for operand in link.inputs]
    if type_of(link) == "Sub":
        signs[1:] = [(down, up) for up, down in signs[1:]]
    up, down = (sum(counts) for counts in zip(*signs, strict=True)) if signs else (0, 0)
    if not up or not down:
        return None
    return f"{type_of(link)} takes Inf from Inf: its inputs hold Inf already ({up + down:,} elements)."


def _signs(operand: Operand) -> tuple[int, int]:
    return operand.counts.pos_inf, operand.counts.neg_inf


def _masked_softmax(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.counts.neg_inf and makes_nan(link) and not x.counts.nan + x.counts.pos_inf:
            held = f"{type_of(link)} of logits that hold -Inf ({share(x.counts.neg_inf, x)})"
            return f"{held}: where a whole row is -Inf, it is 0/0."
    return None


def _infinite_softmax(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.counts.pos_inf and not x.counts.nan:
            return f"{type_of(link)} of logits that hold +Inf ({share(x.counts.pos_inf, x)})."
    return None


def _entropy_of_mask(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if count_inf(x) and not x.counts.nan:
            held = f"{type_of(link)} of logits that hold Inf ({share(count_inf(x), x)})"
            return f"{held}: a class of probability 0 has an infinite loss, or with a label of 0 a loss of NaN."
    return None


def _label_range(link: Link) -> str | None:
    match link.inputs:
        case (logits, labels, *_) if logits.shape and labels.min is not None and labels.max is not None:
            classes = logits.shape[-1]
            if labels.min < 0 or labels.max >= classes:
                reach = f"from {number(labels.min)} to {number(labels.max)}"
                return f"Labels reach {reach}, and there are {classes:,} classes: from 0 to {classes - 1:,}."
    return None


def _constant(link: Link) -> str | None:
    return f"A constant of the program is {KINDS[link.kind]}."


def _empty(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.counts.size == 0:
            return f"{type_of(link)} of an empty tensor, of shape {list(x.shape)}."
    return None


def _no_alignment(link: Link) -> str | None:
    if link.kind != "pos_inf" or not link.inputs or any(operand.counts.nonfinite for operand in link.inputs):
        return None
    return "Labels do not fit their input: with a blank between equal labels, they need more frames than it has."


_PRODUCTS: Final = frozenset({"Mul", "MatMul", "BatchMatMulV2"})
_SOFTMAX: Final = frozenset({"Softmax", "LogSoftmax"})

RULES: Final = (
    Rule("zero-times-inf", frozenset({"Mul"}), _zero_times_inf, _HALF_CONSTANT_FIX, _is_half_constant),
    Rule("zero-times-inf", _PRODUCTS, _zero_times_inf, _WHERE_FIX, in_phase("backward")),
    Rule("zero-times-inf", frozenset({"Mul"}), _zero_times_inf, _ZERO_FIX),
    Rule("zero-times-inf", _PRODUCTS - {"Mul"}, _zero_times_inf, _MATRIX_FIX),
    Rule(
        "inf-minus-inf",
        frozenset({"Sub", "Add", "AddV2", "AddN", "BiasAdd", "Sum", "Mean", "Cumsum"}),
        _inf_minus_inf,
        f"Keep Inf out of sums. In a mask, take {_MASK}.",
    ),
    Rule(
        "masked-softmax",
        _SOFTMAX,
        _masked_softmax,
        f"Mask with {_MASK}. Or leave at least one finite logit in every row.",
    ),
    Rule(
        "masked-softmax",
        _SOFTMAX,
        _infinite_softmax,
        "Find the overflow that made them infinite. A bound is only a stopgap: tf.clip_by_value(x, -1e4, 1e4).",
    ),
    Rule(
        "label-range",
        frozenset({"SparseSoftmaxCrossEntropyWithLogits"}),
        _label_range,
        "Number the classes from 0 on, or give the model as many outputs as the largest label plus 1.",
    ),
    Rule(
        "infinite-logits",
        frozenset({"SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"}),
        _entropy_of_mask,
        f"Mask with {_MASK}.",
    ),
    Rule(
        "constant",
        frozenset({"Const"}),
        _constant,
        "Put a finite number in its place. For a mask, -1e9 is large enough; in float16, whose range ends at 65,504, "
        "take tf.float16.min / 2.",
    ),
    Rule(
        "empty-tensor",
        frozenset({"Mean"}),
        _empty,
        "Make sure that a mask or a filter leaves something to reduce: divide the sum by at least 1, "
        "tf.reduce_sum(x) / tf.maximum(tf.cast(tf.size(x), x.dtype), 1), or leave such a batch out.",
    ),
    Rule(
        "empty-tensor",
        frozenset({"Max", "Min"}),
        _empty,
        "Make sure that a mask or a filter leaves something to reduce: reduce tf.concat([x, [0.0]], 0), "
        "or leave such a batch out.",
    ),
    Rule(
        "ctc-no-alignment",
        frozenset({"CTCLoss", "CTCLossV2"}),
        _no_alignment,
        "Leave out samples whose labels are longer than their input, or give the model more frames.",
    ),
)
