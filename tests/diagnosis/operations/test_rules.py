"""Each rule applies to its operation, quotes the numbers, and does not apply just outside its limits."""

from __future__ import annotations

import pytest

from tb_nanwatch.diagnosis.operations import RULES, cause_of_operation, causes_of_chain
from tb_nanwatch.schema.records import Counts, Source
from tests.replays import link, operand


def cause(kind, op, *inputs, phase="forward"):
    return cause_of_operation(link(kind, *inputs, op=op, phase=phase))


def half(low, high, **facts):
    return operand(low, high, dtype="float16", **facts)


TEXTS = [
    (
        ("neg_inf", "Log", operand(0.0, 1.0, zeros=2, shape=(64, 10))),
        "logarithm-of-zero",
        "Log of a tensor whose minimum is 0 (2 of 640 elements are 0): the logarithm of 0 is -Inf.",
    ),
    (
        ("nan", "Log", operand(-0.25, 1.0)),
        "logarithm-of-zero",
        "Log of a tensor whose minimum is -0.25: the logarithm of a negative number is NaN.",
    ),
    (
        ("neg_inf", "Log", operand(1e-40, 1.0)),
        "logarithm-of-zero",
        "Log of a tensor whose minimum is 1e-40: the logarithm of 0 is -Inf.",
    ),
    (
        ("neg_inf", "Xlogy", operand(1.0, 1.0), operand(0.0, 1.0, zeros=1)),
        "logarithm-of-zero",
        "Logarithm of a tensor whose minimum is 0 (1 of 64 elements is 0): the logarithm of 0 is -Inf.",
    ),
    (
        ("neg_inf", "Log1p", operand(-1.0, 1.0)),
        "logarithm-of-zero",
        "Log1p of a tensor whose minimum is -1; it is defined above -1.",
    ),
    (
        ("nan", "Sqrt", operand(-1e-9, 4.0)),
        "negative-root",
        "Sqrt of a tensor whose minimum is -1e-09: the root of a negative number is NaN.",
    ),
    (
        ("pos_inf", "Rsqrt", operand(0.0, 4.0, zeros=3)),
        "root-of-zero",
        "Rsqrt of a tensor whose minimum is 0 (3 of 64 elements are 0): 1 over the root of 0 is Inf.",
    ),
    (
        ("nan", "Pow", operand(-3.0, 4.0), operand(0.5, 0.5, shape=())),
        "power",
        "Pow of a tensor whose minimum is -3 to the power of 0.5: that is no real number.",
    ),
    (
        ("pos_inf", "Pow", operand(0.0, 4.0, zeros=1), operand(-2.0, -1.0)),
        "power",
        "Pow of a tensor that holds 0 (1 of 64 elements is 0) to powers from -2 to -1: 0 to a negative power is Inf.",
    ),
    (
        ("pos_inf", "Pow", operand(1.0, 1e20), operand(2.0, 2.0, shape=())),
        "power",
        "Pow of values up to 1e+20 to the power of 2 leaves the range of float32.",
    ),
    (
        ("pos_inf", "RealDiv", operand(1.0, 2.0), operand(0.0, 2.0, zeros=5)),
        "division-by-zero",
        "RealDiv by a tensor that holds 0 (5 of 64 elements).",
    ),
    (
        ("nan", "RealDiv", operand(0.0, 2.0, zeros=5), operand(0.0, 2.0, zeros=5)),
        "division-by-zero",
        "RealDiv by a tensor that holds 0 (5 of 64 elements): 0/0 is NaN.",
    ),
    (
        ("pos_inf", "DivNoNan", operand(1.0, 1e30), operand(-2.0, -1e-20)),
        "division-by-zero",
        "DivNoNan of values up to 1e+30 by values as small as 1e-20 leaves the range of float32.",
    ),
    (
        ("pos_inf", "Reciprocal", operand(-1.0, 1.0, zeros=1)),
        "division-by-zero",
        "Reciprocal of a tensor that holds 0 (1 of 64 elements).",
    ),
    (
        ("pos_inf", "Exp", operand(-3.0, 120.0)),
        "exponential-overflow",
        "Exp of a tensor whose maximum is 120; beyond 88.72 it leaves the range of float32.",
    ),
    (
        ("pos_inf", "Exp", half(-3.0, 11.5)),
        "exponential-overflow",
        "Exp of a tensor whose maximum is 11.5; beyond 11.09 it leaves the range of float16.",
    ),
    (
        ("neg_inf", "Sinh", operand(-90.0, 3.0)),
        "exponential-overflow",
        "Sinh of a tensor whose largest magnitude is 90; beyond 89.42 it leaves the range of float32.",
    ),
    (
        ("nan", "Acos", operand(-0.5, 1.0000001)),
        "outside-domain",
        "Acos of a tensor whose elements reach from -0.5 to 1.0000001; it is defined from -1 to 1.",
    ),
    (
        ("pos_inf", "Atanh", operand(-0.5, 1.0)),
        "outside-domain",
        "Atanh of a tensor whose elements reach from -0.5 to 1; it is defined between -1 and 1.",
    ),
    (
        ("nan", "Acosh", operand(0.5, 7.0)),
        "outside-domain",
        "Acosh of a tensor whose elements reach from 0.5 to 7; it is defined from 1 on.",
    ),
    (
        ("pos_inf", "Square", operand(-2.5e19, 3.0)),
        "square-overflow",
        "Square of values up to 2.5e+19 leaves the range of float32 (up to 3.4e+38).",
    ),
    (
        ("pos_inf", "SquaredDifference", half(0.0, 200.0), half(-100.0, 0.0)),
        "square-overflow",
        "SquaredDifference of values up to 200 and values up to 100 leaves the range of float16 (up to 6.55e+04).",
    ),
    (
        ("pos_inf", "L2Loss", operand(0.0, 9e18)),
        "square-overflow",
        "L2Loss of values up to 9e+18 leaves the range of float32 (up to 3.4e+38).",
    ),
    (
        ("pos_inf", "Mul", operand(0.0, 1e20), operand(-1e20, 1.0)),
        "product-overflow",
        "Mul of values up to 1e+20 and values up to 1e+20 leaves the range of float32 (up to 3.4e+38).",
    ),
    (
        ("nan", "MatMul", half(-90.0, 90.0, shape=(8, 64)), half(0.0, 30.0, shape=(64, 8))),
        "product-overflow",
        "MatMul of values up to 90 and values up to 30 leaves the range of float16 (up to 6.55e+04).",
    ),
    (
        ("pos_inf", "Cumprod", operand(0.5, 3.0), operand(0.0, 0.0, dtype="int32", shape=())),
        "product-overflow",
        "Cumprod of values up to 3 leaves the range of float32 (up to 3.4e+38).",
    ),
    (
        ("pos_inf", "Sum", operand(0.0, 1e38), operand(0.0, 0.0, dtype="int32", shape=())),
        "sum-overflow",
        "Sum of values up to 1e+38 leaves the range of float32 (up to 3.4e+38).",
    ),
    (
        ("pos_inf", "AddV2", half(0.0, 6e4), half(0.0, 6e4)),
        "sum-overflow",
        "AddV2 of values up to 6e+04 and values up to 6e+04 leaves the range of float16 (up to 6.55e+04).",
    ),
    (
        ("pos_inf", "Cast", operand(0.0, 1e5)),
        "cast-overflow",
        "Cast of values up to 1e+05 to float16, whose range ends at 6.55e+04.",
    ),
    (
        ("pos_inf", "Cast", operand(0.0, 1e50, dtype="float64")),
        "cast-overflow",
        "Cast of values up to 1e+50 to float32, whose range ends at 3.4e+38.",
    ),
    (
        ("pos_inf", "FusedBatchNormV3", operand(0.0, 1e20)),
        "batch-norm-overflow",
        "The variance of values up to 1e+20 leaves the range of float32 (up to 3.4e+38).",
    ),
    (
        ("nan", "FusedBatchNormV3", *[operand(0.0, 1.0)] * 4, operand(-0.5, 1.0)),
        "batch-norm-overflow",
        "The variance that FusedBatchNormV3 was given is negative: its minimum is -0.5.",
    ),
    (
        ("nan", "Sub", operand(0.0, 1.0, pos_inf=2), operand(0.0, 1.0, pos_inf=3)),
        "inf-minus-inf",
        "Sub takes Inf from Inf: its inputs hold Inf already (5 elements).",
    ),
    (
        ("nan", "AddV2", operand(0.0, 1.0, pos_inf=2), operand(0.0, 1.0, neg_inf=3)),
        "inf-minus-inf",
        "AddV2 takes Inf from Inf: its inputs hold Inf already (5 elements).",
    ),
    (
        ("nan", "Sum", operand(0.0, 1.0, pos_inf=2, neg_inf=1)),
        "inf-minus-inf",
        "Sum takes Inf from Inf: its inputs hold Inf already (3 elements).",
    ),
    (
        ("nan", "Mul", operand(0.0, 1.0, zeros=12), operand(0.0, 1.0, neg_inf=3)),
        "zero-times-inf",
        "Mul of 0 and Inf is NaN: one factor holds Inf (3 of 64 elements), the other 0 (12 of 64 elements).",
    ),
    (
        ("nan", "Softmax", operand(0.0, 1.0, neg_inf=8)),
        "masked-softmax",
        "Softmax of logits that hold -Inf (8 of 64 elements): where a whole row is -Inf, it is 0/0.",
    ),
    (
        ("nan", "LogSoftmax", operand(0.0, 1.0, pos_inf=1)),
        "masked-softmax",
        "LogSoftmax of logits that hold +Inf (1 of 64 elements).",
    ),
    (
        ("nan", "SparseSoftmaxCrossEntropyWithLogits", operand(0.0, 1.0, shape=(8, 10)), operand(0, 10, dtype="int32")),
        "label-range",
        "Labels reach from 0 to 10, and there are 10 classes: from 0 to 9.",
    ),
    (
        ("pos_inf", "SoftmaxCrossEntropyWithLogits", operand(0.0, 1.0, neg_inf=1), operand(0.0, 1.0)),
        "infinite-logits",
        (
            "SoftmaxCrossEntropyWithLogits of logits that hold Inf (1 of 64 elements): a class of probability 0 has an "
            "infinite loss, or with a label of 0 a loss of NaN."
        ),
    ),
    (("neg_inf", "Const"), "constant", "A constant of the program is -Inf."),
    (
        ("nan", "Mean", operand(None, None, shape=(0, 3))),
        "empty-tensor",
        "Mean of an empty tensor, of shape [0, 3].",
    ),
    (
        ("pos_inf", "CTCLoss", operand(-3.0, 3.0)),
        "ctc-no-alignment",
        "Labels do not fit their input: with a blank between equal labels, they need more frames than it has.",
    ),
]

SLOPE_TEXTS = [
    (
        ("pos_inf", "SqrtGrad", operand(0.0, 2.0, zeros=3), operand(0.0, 1.0)),
        "The slope of a square root at 0: its output holds 0 (3 of 64 elements).",
    ),
    (
        ("pos_inf", "SqrtGrad", operand(1e-30, 2.0), operand(0.0, 1e10)),
        "The slope of a square root near 0: its output is as small as 1e-30.",
    ),
    (
        ("neg_inf", "RsqrtGrad", operand(1.0, 1e13), operand(0.0, 1.0)),
        "The slope of 1 over a square root near 0: its output is as large as 1e+13.",
    ),
    (
        ("neg_inf", "ReciprocalGrad", operand(1.0, 1e20), operand(0.0, 1.0)),
        "The slope of 1/x near 0: its output is as large as 1e+20.",
    ),
    (
        ("pos_inf", "Pow", operand(0.0, 2.0, zeros=1), operand(-0.5, -0.5, shape=())),
        (
            "The slope of a power below 1 at 0: its base holds 0 (1 of 64 elements), which the slope takes to the "
            "power of -0.5."
        ),
    ),
    (
        ("pos_inf", "Reciprocal", operand(0.0, 2.0, zeros=1)),
        "The slope of a function at 0 is 1/0: Reciprocal of a tensor that holds 0 (1 of 64 elements).",
    ),
    (
        ("pos_inf", "RealDiv", operand(1.0, 2.0), operand(0.0, 2.0, zeros=1)),
        "The slope of a function at 0 is a division by 0: RealDiv by a tensor that holds 0 (1 of 64 elements).",
    ),
]
ADAM = [operand(0.9, 0.9, shape=())] * 2
RATE, BETA, EPSILON = operand(0.1, 0.1, shape=()), operand(0.9, 0.9, shape=()), operand(1e-7, 1e-7, shape=())
NO_RATE = operand(None, None, shape=(), pos_inf=1)
NO_EPSILON = operand(0.0, 0.0, shape=(), zeros=1, dtype="float16")

UPDATE_TEXTS = [
    (
        ("nan", "ResourceApplyAdam", *ADAM, NO_RATE, BETA, BETA, EPSILON, operand(0.0, 1.0)),
        "learning-rate",
        "The learning rate that ResourceApplyAdam was given is not finite.",
    ),
    (
        ("nan", "ResourceApplyGradientDescent", NO_RATE, operand(0.0, 1.0)),
        "learning-rate",
        "The learning rate that ResourceApplyGradientDescent was given is not finite.",
    ),
    (
        ("nan", "ResourceApplyAdam", *ADAM, RATE, BETA, BETA, NO_EPSILON, operand(0.0, 1.0)),
        "optimizer-epsilon",
        "The epsilon that ResourceApplyAdam was given is 0 in float16, so it divides by a root that may be 0.",
    ),
    (
        ("neg_inf", "ResourceApplyMomentum", operand(1e10, 1e10, shape=()), operand(0.0, 1e30), BETA),
        "update-overflow",
        "A learning rate of 1e+10 times gradients with values up to 1e+30 leaves the range of float32.",
    ),
]


@pytest.mark.parametrize(("operation_and_inputs", "identity", "text"), TEXTS)
def test_the_text_of_a_rule_quotes_the_inputs(operation_and_inputs, identity, text):
    found = cause(*operation_and_inputs)
    assert (found.id, found.text, found.confidence) == (identity, text, "high")


@pytest.mark.parametrize(("operation_and_inputs", "text"), SLOPE_TEXTS)
def test_an_operation_of_the_backward_pass_is_explained_as_a_slope(operation_and_inputs, text):
    found = cause(*operation_and_inputs, phase="backward")
    assert (found.id, found.text) == ("slope-at-zero", text)


@pytest.mark.parametrize(("operation_and_inputs", "identity", "text"), UPDATE_TEXTS)
def test_an_update_is_explained_by_its_learning_rate_or_epsilon(operation_and_inputs, identity, text):
    found = cause(*operation_and_inputs, phase="update")
    assert (found.id, found.text) == (identity, text)


def test_an_output_with_inf_and_nan_counts_as_nan():
    factors = operand(0.0, 1.0, zeros=1, shape=(2,)), operand(None, None, shape=(), neg_inf=1)
    made = link("neg_inf", *factors, op="Mul", counts=Counts(size=2, nan=1, pos_inf=0, neg_inf=1))
    assert cause_of_operation(made).id == "zero-times-inf"


def test_the_slope_of_a_power_quotes_the_exponent_of_the_program():
    found = cause("nan", "Pow", operand(-3.0, 4.0), operand(0.2, 0.2, shape=()), phase="backward")
    assert found.text == "The slope of Pow of a tensor whose minimum is -3 to the power of 1.2: that is no real number."


def test_a_mean_over_padding_alone_is_explained():
    pooling = Source("lib/keras/src/layers/pooling/global_average_pooling1d.py", 86, "call", "")
    total, kept = operand(0.0, 2.0, zeros=3), operand(0.0, 4.0, shape=(16, 1), zeros=2)
    found = cause_of_operation(link("nan", total, kept, op="RealDiv", stack=(pooling,)))
    assert (found.id, found.text) == (
        "all-padding",
        (
            "GlobalAveragePooling1D takes the mean of the steps that the mask keeps. In 2 of 16 samples it keeps none: "
            "all of the sample is padding."
        ),
    )
    assert cause_of_operation(link("nan", total, kept, op="RealDiv")).id == "division-by-zero"


def test_every_rule_has_a_text_in_this_file():
    tested = {identity for _, identity, _ in TEXTS + UPDATE_TEXTS} | {"slope-at-zero", "all-padding"}
    assert tested == {rule.id for rule in RULES}


@pytest.mark.parametrize(
    "operation_and_inputs",
    [
        ("nan", "Log", operand(1e-7, 1.0)),
        ("nan", "Log1p", operand(-0.99, 1.0)),
        ("nan", "Sqrt", operand(0.0, 1.0, zeros=9)),
        ("nan", "Rsqrt", operand(1e-6, 1.0)),
        ("nan", "Pow", operand(-3.0, 4.0), operand(2.0, 2.0)),
        ("pos_inf", "Pow", operand(0.0, 4.0, zeros=1), operand(0.5, 0.5)),
        ("nan", "RealDiv", operand(0.0, 1.0), operand(-1.0, 1.0)),
        ("nan", "DivNoNan", operand(1.0, 1.0), operand(0.0, 1.0, zeros=9)),
        ("nan", "Reciprocal", operand(-1.0, 1.0)),
        ("pos_inf", "Exp", operand(-1e9, 88.7)),
        ("pos_inf", "Cosh", operand(-89.0, 89.0)),
        ("nan", "Acos", operand(-1.0, 1.0)),
        ("nan", "Atanh", operand(-0.99, 0.99)),
        ("pos_inf", "Square", operand(0.0, 1e19)),
        ("pos_inf", "Square", operand(0.0, 1e30, pos_inf=1)),
        ("pos_inf", "Mul", operand(0.0, 1e19), operand(0.0, 1e19)),
        ("nan", "MatMul", operand(0.0, 1e5), operand(0.0, 1e5)),
        ("pos_inf", "Sum", operand(0.0, 1e36)),
        ("pos_inf", "Cast", operand(0.0, 6e4)),
        ("pos_inf", "Cast", operand(0, 10**6, dtype="int64")),
        ("nan", "FusedBatchNormV3", *[operand(0.0, 1.0)] * 5),
        ("nan", "Sub", operand(0.0, 1.0, pos_inf=2), operand(0.0, 1.0, neg_inf=3)),
        ("nan", "AddV2", operand(0.0, 1.0, pos_inf=2), operand(0.0, 1.0, pos_inf=3)),
        ("nan", "AddV2", operand(0.0, 1.0, pos_inf=2, nan=1), operand(0.0, 1.0, neg_inf=3)),
        ("nan", "Mul", operand(1.0, 1.0), operand(0.0, 1.0, neg_inf=3)),
        ("nan", "Mul", operand(0.0, 1.0, zeros=1, nan=1), operand(0.0, 1.0, neg_inf=3)),
        ("nan", "Softmax", operand(0.0, 1.0)),
        ("nan", "Softmax", operand(0.0, 1.0, nan=1, neg_inf=1)),
        ("nan", "SparseSoftmaxCrossEntropyWithLogits", operand(0.0, 1.0, shape=(8, 10)), operand(0, 9, dtype="int32")),
        ("nan", "Mean", operand(0.0, 1.0)),
        ("nan", "CTCLoss", operand(0.0, 1.0)),
        ("pos_inf", "CTCLoss", operand(0.0, 1.0, neg_inf=1)),
        ("nan", "SqrtGrad", operand(1e-3, 1.0), operand(0.0, 1.0)),
        ("nan", "RsqrtGrad", operand(1e-3, 1e3), operand(0.0, 1.0)),
        ("nan", "ResourceApplyAdam", *ADAM, RATE, BETA, BETA, EPSILON, operand(0.0, 1.0)),
        ("nan", "ResourceApplyAdam", *ADAM, operand(1e30, 1e30), BETA, BETA, EPSILON, operand(0.0, 1e30)),
        ("nan", "Log of my own", operand(0.0, 1.0, zeros=1)),
    ],
)
def test_a_rule_does_not_apply_without_proof_by_the_numbers(operation_and_inputs):
    assert cause(*operation_and_inputs) is None


@pytest.mark.parametrize("operation", sorted(set().union(*(rule.operations for rule in RULES)) - {"Const"}))
@pytest.mark.parametrize("kind", ["nan", "pos_inf"])
def test_an_operation_with_unknown_inputs_has_no_cause(operation, kind):
    empty = [operand(None, None, shape=(3,), nan=3)] * 2
    assert cause(kind, operation) is None
    assert cause(kind, operation, *empty) is None or operation.startswith("ResourceApply")


def test_a_value_from_outside_the_step_has_no_cause_here():
    assert cause_of_operation(link("nan", op=None, phase="input")) is None


@pytest.mark.parametrize(
    ("operation_and_inputs", "phase", "words"),
    [
        (("neg_inf", "Log", operand(0.0, 1.0)), "loss", "tf.nn.softmax_cross_entropy_with_logits"),
        (("pos_inf", "Square", operand(0.0, 1e20)), "loss", "Huber"),
        (("pos_inf", "MatMul", operand(0.0, 1e20), operand(0.0, 1e20)), "forward", "normalise"),
        (("pos_inf", "L2Loss", operand(0.0, 1e20)), "clip", "by their largest element"),
        (("pos_inf", "Mul", half(0.0, 1e4), half(0.0, 1e4)), "forward", "bfloat16"),
        (("pos_inf", "Mul", half(0.0, 1e4), half(0.0, 1e4)), "backward", "loss scale"),
        (("pos_inf", "RealDiv", operand(1.0, 1.0), operand(0.0, 0.0, zeros=1)), "forward", "divide_no_nan"),
        (("pos_inf", "RealDiv", operand(1.0, 1.0), operand(0.0, 0.0, zeros=1)), "clip", "tf.clip_by_global_norm"),
        (("pos_inf", "RealDiv", operand(1.0, 1.0), operand(0.0, 0.0, zeros=1)), "update", "epsilon"),
        (("pos_inf", "RealDiv", operand(1.0, 1.0), operand(0.0, 0.0, zeros=1)), "backward", "tf.where"),
        (("nan", "Mul", operand(0.0, 1.0, zeros=1), operand(0.0, 1.0, pos_inf=1)), "backward", "tf.where(ok, x, 1.0)"),
        (("nan", "Mul", operand(0.0, 1.0, zeros=1), operand(0.0, 1.0, pos_inf=1)), "forward", "multiply_no_nan"),
    ],
)
def test_the_fix_fits_the_phase_and_the_dtype(operation_and_inputs, phase, words):
    assert words in cause(*operation_and_inputs, phase=phase).fix


def test_the_operation_that_makes_nan_of_an_intended_mask_comes_first():
    mask, select = link("neg_inf", op="Const"), link("neg_inf", operand(0.0, 1.0, neg_inf=8), op="SelectV2")
    softmax = link("nan", operand(0.0, 1.0, neg_inf=8), op="Softmax")
    assert [cause.id for cause in causes_of_chain((mask, select, softmax))] == ["masked-softmax", "constant"]
    assert [cause.id for cause in causes_of_chain((mask, select))] == ["constant"]


def test_an_operation_after_an_overflow_is_no_cause():
    square = link("pos_inf", operand(0.0, 1e20), op="Square")
    minus = link("nan", operand(0.0, 1.0, pos_inf=1, neg_inf=1), op="Sum")
    assert [cause.id for cause in causes_of_chain((square, minus))] == ["square-overflow"]
    assert [cause.id for cause in causes_of_chain((link("nan", op="Const"), minus))] == ["constant"]
