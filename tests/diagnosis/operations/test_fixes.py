"""The fix of each rule works: applied to an example of the rule, it leaves only finite numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.diagnosis.operations import RULES
from tb_nanwatch.schema.records import Link, Operand, Operation, Source
from tb_nanwatch.watch.replay.execution import range_of


@dataclass(frozen=True)
class Example:
    """A small program that a rule explains, and the same program with the rule's fix.

    Attributes:
        op: the operation that makes NaN or Inf.
        broken: the program, an expression.
        given: the inputs of the operation, an expression each.
        advice: a part of the fix; code in it is also in ``fixed``.
        fixed: the program with the fix; by default ``advice`` itself.
        data: the variables of all expressions.
        phase: phase of the operation.
        names: names of the operation's inputs.
        file: a file on the stack of the operation.
        is_first_step: whether no update came before.
    """

    op: str
    broken: str
    given: tuple[str, ...]
    advice: str
    fixed: str = ""
    data: dict[str, object] = field(default_factory=dict)
    phase: str = "forward"
    names: tuple[str, ...] = ()
    file: str = ""
    is_first_step: bool = False

    def run(self, program: str) -> np.ndarray:
        """Return all that a program gives, in one array."""
        values = tf.nest.flatten(eval(program, {"tf": tf, "keras": keras, **HELPERS, **self.tensors}))
        return np.concatenate([np.ravel(np.asarray(value, np.float64)) for value in values])

    @property
    def tensors(self) -> dict[str, object]:
        return {name: tf.constant(value) for name, value in self.data.items()}

    @property
    def link(self) -> Link:
        values = [eval(one, {"tf": tf, **HELPERS, **self.tensors}) for one in self.given]
        names = [*self.names, *["x"] * len(values)]
        inputs = tuple(operand(name, np.asarray(value)) for name, value in zip(names, values, strict=False))
        kind = "nan" if np.isnan(self.result).any() else "neg_inf" if (self.result < 0).any() else "pos_inf"
        stack = (Source(self.file, 1, "call", ""),) if self.file else ()
        facts = {"layer": None, "source": None, "stack": stack}
        return Link(Operation(self.op, self.op), self.phase, kind=kind, inputs=inputs, **facts)

    @property
    def result(self) -> np.ndarray:
        try:
            return self.run(self.broken)
        except tf.errors.InvalidArgumentError:
            # On a CPU some operations reject inputs that make NaN or Inf on a GPU.
            return np.array([np.inf])


def operand(name: str, value: np.ndarray) -> Operand:
    found = range_of(value)
    return Operand(name, found.dtype, found.shape, found.counts, found.min, found.max, found.zeros)


def grad(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


def descent(rate, gradient, start=1.0):
    variable = tf.Variable(tf.fill(tf.shape(gradient), tf.cast(start, gradient.dtype)))
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=tf.cast(rate, gradient.dtype), delta=gradient)
    return variable


def adam(epsilon, gradient):
    variables = [tf.Variable(tf.zeros_like(gradient)) for _ in range(3)]
    scalars = [tf.cast(value, gradient.dtype) for value in (0.9, 0.9, 0.1, 0.9, 0.9, epsilon)]
    names = ("beta1_power", "beta2_power", "lr", "beta1", "beta2", "epsilon")
    handles = dict(zip(("var", "m", "v"), (variable.handle for variable in variables), strict=True))
    tf.raw_ops.ResourceApplyAdam(**handles, **dict(zip(names, scalars, strict=True)), grad=gradient)
    return variables[0]


def batch_norm(x, variance=()):
    ones = tf.ones([x.shape[-1]])
    mean = tf.zeros([x.shape[-1]]) if len(variance) else []
    normed = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=ones, offset=0 * ones, mean=mean, variance=variance, epsilon=1e-3, is_training=not len(variance)
    )
    return normed[0], normed[2]


def ctc(frames):
    labels = tf.SparseTensor([[0, 0], [0, 1], [0, 2]], [1, 1, 1], [1, 3])
    logits = tf.zeros([frames, 1, 3])
    return tf.compat.v1.nn.ctc_loss(labels, logits, [frames])


def half(values):
    return np.array(values, np.float16)


def single(*values):
    return np.array(values, np.float32)


HELPERS = {"grad": grad, "descent": descent, "adam": adam, "batch_norm": batch_norm, "ctc": ctc}
WHERE = "tf.where(ok, f(tf.where(ok, x, 1.0)), 0.0)"
INF, NAN = np.inf, np.nan
LARGE = {"x": single(1e20, 2e20, -3e20)}
HALF = {"x": half([300.0, -400.0])}
SCALED = "x / tf.reduce_max(tf.abs(x))"
WIDE = "tf.cast(x, tf.float32)"
OVERFLOWS = {"Square": "tf.square({x})", "Mul": "{x} * {x}", "Sum": "tf.reduce_sum({x})"}
SUMMED = {"x": single(3e38, 3e38)}
HALF_SUMMED = {"x": half([6e4, 6e4])}


def overflows():
    """Return examples of the operations that leave the range, for each circumstance that has an advice of its own."""
    for op, program in OVERFLOWS.items():
        given = ("x", "x") if op == "Mul" else ("x",)
        large, small = (SUMMED, HALF_SUMMED) if op == "Sum" else (LARGE, HALF)

        def example(advice, by, data, op=op, program=program, given=given, **facts):
            return Example(op, program.format(x="x"), given, advice, program.format(x=by), data, **facts)

        yield example("Lower the loss scale", "(x / 1024)", small, phase="backward")
        yield example("tf.cast before it", WIDE, small)
        yield example("largest element", SCALED, large, phase="clip")
        yield example("scale the inputs", f"({SCALED})", large, is_first_step=True)
        yield example("normalise what goes into this operation", f"({SCALED})", large, phase="backward")
    yield Example("Square", "tf.square(x)", ("x",), "tf.keras.losses.Huber", "tf.keras.losses.Huber()(0 * x, x)", LARGE)


EXAMPLES = [
    # Slopes.
    Example(
        "SqrtGrad",
        "grad(tf.sqrt, x)",
        ("tf.sqrt(x)", "tf.ones_like(x)"),
        "tf.sqrt(x + 1e-12)",
        "grad(lambda x: tf.sqrt(x + 1e-12), x)",
        {"x": single(0, 4)},
        phase="backward",
    ),
    Example(
        "SqrtGrad",
        "grad(tf.sqrt, x)",
        ("tf.sqrt(x)", "tf.ones_like(x)"),
        "tf.sqrt(x + 1e-3)",
        "grad(lambda x: tf.sqrt(x + 1e-3), x)",
        {"x": half([0, 4])},
        phase="backward",
    ),
    Example(
        "RsqrtGrad",
        "grad(tf.math.rsqrt, x)",
        ("tf.math.rsqrt(x)", "tf.ones_like(x)"),
        "tf.math.rsqrt(x + 1e-6)",
        "grad(lambda x: tf.math.rsqrt(x + 1e-6), x)",
        {"x": single(1e-27, 4)},
        phase="backward",
    ),
    Example(
        "ReciprocalGrad",
        "grad(tf.math.reciprocal, x)",
        ("1 / x", "tf.ones_like(x)"),
        "Add an epsilon to the divisor",
        "grad(lambda x: tf.math.reciprocal(x + 1e-6), x)",
        {"x": single(1e-20, 4)},
        phase="backward",
    ),
    Example(
        "Pow",
        "grad(lambda x: tf.pow(x, 0.5), x)",
        ("x", "tf.constant(-0.5)"),
        "tf.pow(x + 1e-7, p)",
        "grad(lambda x: tf.pow(x + 1e-7, 0.5), x)",
        {"x": single(0, 4)},
        phase="backward",
    ),
    Example(
        "Reciprocal",
        "grad(lambda x: tf.where(x > 0, tf.math.log(x), 0.0), x)",
        ("x",),
        WHERE,
        "grad(lambda x: tf.where(x > 0, tf.math.log(tf.where(x > 0, x, 1.0)), 0.0), x)",
        {"x": single(0, 4)},
        phase="backward",
    ),
    Example(
        "RealDiv",
        "grad(lambda x: tf.where(x > 0, 1.0 / x, 0.0), x)",
        ("-1.0 / x", "x"),
        WHERE,
        "grad(lambda x: tf.where(x > 0, 1.0 / tf.where(x > 0, x, 1.0), 0.0), x)",
        {"x": single(0, 4)},
        phase="backward",
    ),
    # Domains.
    Example("Log", "tf.math.log(x)", ("x",), "tf.math.log(tf.maximum(x, 1e-7))", data={"x": single(-0.5, 1)}),
    Example("Log", "tf.math.log(x)", ("x",), "tf.math.log(tf.maximum(x, 1e-3))", data={"x": half([-0.5, 1])}),
    Example(
        "Xlogy",
        "tf.math.xlogy(1.0, x)",
        ("tf.ones_like(x)", "x"),
        "tf.maximum(x, 1e-7)",
        "tf.math.xlogy(1.0, tf.maximum(x, 1e-7))",
        {"x": single(-0.5, 1)},
    ),
    Example(
        "Log",
        "tf.math.log(tf.sigmoid(x))",
        ("tf.sigmoid(x)",),
        "tf.math.log_sigmoid(x)",
        data={"x": single(-200, 1)},
        names=("head/Sigmoid_1",),
    ),
    Example(
        "Log",
        "tf.math.log(tf.nn.softmax(x))",
        ("tf.nn.softmax(x)",),
        "tf.nn.log_softmax(x)",
        data={"x": single(-200, 1)},
        names=("head/Softmax",),
    ),
    Example("Log", "tf.math.log(x)", ("x",), "tf.math.log(x + 1e-7)", data={"x": single(0, 1)}),
    Example("Log", "tf.math.log(x)", ("x",), "tf.math.log(x + 1e-3)", data={"x": half([0, 1])}),
    Example("Log1p", "tf.math.log1p(x)", ("x",), "tf.math.log1p(tf.maximum(x, -1 + 1e-6))", data={"x": single(-1, 1)}),
    Example("Sqrt", "tf.sqrt(x)", ("x",), "tf.sqrt(tf.maximum(x, 1e-12))", data={"x": single(-1e-9, 1)}),
    Example(
        "Rsqrt",
        "tf.math.rsqrt(x)",
        ("x",),
        "tf.math.rsqrt(tf.maximum(x, 0.0) + 1e-6)",
        data={"x": single(-1e-9, 1)},
    ),
    Example("Rsqrt", "tf.math.rsqrt(x)", ("x",), "tf.math.rsqrt(x + 1e-6)", data={"x": single(0, 1)}),
    Example(
        "Pow",
        "tf.pow(x, p)",
        ("x", "p"),
        "tf.pow(tf.maximum(x, 1e-7), p)",
        data={"x": single(-3, 4), "p": np.float32(0.5)},
    ),
    Example(
        "Pow",
        "tf.pow(x, p)",
        ("x", "p"),
        "tf.sign(x) * tf.pow(tf.abs(x) + 1e-7, p)",
        data={"x": single(-3, 4), "p": np.float32(0.5)},
    ),
    Example(
        "Pow",
        "tf.pow(x, p)",
        ("x", "p"),
        "tf.pow(tf.where(tf.abs(x) < 1e-3, 1e-3, x), p)",
        data={"x": single(0, 4), "p": np.float32(-2)},
    ),
    Example(
        "Pow",
        "tf.pow(x, p)",
        ("x", "p"),
        "tf.pow(tf.clip_by_value(x, -1.7e+19, 1.7e+19), p)",
        data={"x": single(1e20, -3), "p": np.float32(2)},
    ),
    Example("Pow", "tf.pow(x, p)", ("x", "p"), "p * tf.math.log(x)", data={"x": single(1e20, 3), "p": np.float32(2)}),
    Example(
        "RealDiv",
        "keras.layers.GlobalAveragePooling1D()(x, mask=kept)",
        ("tf.ones([2, 2])", "tf.reduce_sum(tf.cast(kept, tf.float32), 1, keepdims=True)"),
        "Leave samples that are all padding out",
        "keras.layers.GlobalAveragePooling1D()(x[:1], mask=kept[:1])",
        {"x": np.ones([2, 3, 2], np.float32), "kept": np.array([[True, False, False], [False, False, False]])},
        file="lib/keras/src/layers/pooling/global_average_pooling1d.py",
    ),
    Example(
        "RealDiv",
        "x / tf.norm(x)",
        ("x", "tf.norm(x)"),
        "tf.clip_by_global_norm",
        "tf.clip_by_global_norm([x], 1.0)",
        {"x": single(0, 0)},
        phase="clip",
    ),
    Example(
        "RealDiv",
        "x / (tf.sqrt(x) + tf.constant(1e-8, tf.float16))",
        ("x", "tf.sqrt(x) + tf.constant(1e-8, tf.float16)"),
        "1e-3 is not",
        "x / (tf.sqrt(x) + tf.constant(1e-3, tf.float16))",
        {"x": half([0, 4])},
        phase="update",
    ),
    Example("RealDiv", "x / y", ("x", "y"), "tf.math.divide_no_nan(x, y)", data={"x": single(0, 1), "y": single(0, 0)}),
    Example(
        "DivNoNan",
        "tf.math.divide_no_nan(x, y)",
        ("x", "y"),
        "x / tf.minimum(y, -1.0e-06)",
        data={"x": single(1e30, 1), "y": single(-1e-20, -2)},
    ),
    Example(
        "FloorMod",
        "tf.math.floormod(x, y)",
        ("x", "y"),
        "tf.where(y == 0, 1.0, y)",
        "tf.math.floormod(x, tf.where(y == 0, 1.0, y))",
        {"x": single(2, 1), "y": single(0, 2)},
    ),
    Example("Reciprocal", "tf.math.reciprocal(x)", ("x",), "tf.math.divide_no_nan(1.0, x)", data={"x": single(0, 1)}),
    Example("Exp", "tf.exp(x)", ("x",), "tf.exp(tf.minimum(x, 79))", data={"x": single(120, 1)}),
    Example("Exp", "tf.exp(x)", ("x",), "tf.exp(tf.minimum(x, 9))", data={"x": half([12, 1])}),
    Example("Cosh", "tf.cosh(x)", ("x",), "tf.cosh(tf.clip_by_value(x, -80, 80))", data={"x": single(-120, 1)}),
    *(
        Example(op, f"{name}(x)", ("x",), f"{name}({by})", f"grad(lambda x: {name}({by}), x)", {"x": single(*x)})
        for op, name, by, x in (
            ("Acos", "tf.acos", "tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6)", (-2, 0)),
            ("Asin", "tf.asin", "tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6)", (2, 0)),
            ("Acosh", "tf.acosh", "tf.maximum(x, 1 + 1e-6)", (0.5, 7)),
            ("Atanh", "tf.atanh", "tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6)", (1, 0)),
            ("Erfinv", "tf.math.erfinv", "tf.clip_by_value(x, -1 + 1e-6, 1 - 1e-6)", (1, 0)),
            ("Ndtri", "tf.math.ndtri", "tf.clip_by_value(x, 1e-6, 1 - 1e-6)", (0, 0.5)),
        )
    ),
    # Infinities.
    Example(
        "Mul",
        "x * tf.constant(-1e10, tf.float16)",
        ("x", "tf.constant(float('-inf'), tf.float16)"),
        "x * (tf.float16.min / 2)",
        data={"x": half([0, 1])},
    ),
    Example(
        "Mul",
        "grad(lambda x: tf.where(x > 0, tf.math.log(x), 0.0), x)",
        ("tf.zeros_like(x)", "1 / x"),
        "tf.where(ok, f(tf.where(ok, x, 1.0)), 0.0)",
        "grad(lambda x: tf.where(x > 0, tf.math.log(tf.where(x > 0, x, 1.0)), 0.0), x)",
        {"x": single(0, 4)},
        phase="backward",
    ),
    Example("Mul", "x * y", ("x", "y"), "tf.math.multiply_no_nan(x, y)", data={"x": single(INF, 1), "y": single(0, 1)}),
    Example(
        "MatMul",
        "tf.matmul(x, y)",
        ("x", "y"),
        "tf.where(tf.math.is_finite(x), x, 0.0)",
        "tf.matmul(tf.where(tf.math.is_finite(x), x, 0.0), y)",
        {"x": np.array([[INF, 1]], np.float32), "y": np.array([[0], [1]], np.float32)},
    ),
    Example(
        "AddV2",
        "tf.where([True, False], x, -tf.constant(float('inf'))) + y",
        ("tf.constant([1.0, float('-inf')])", "y"),
        "instead of -Inf: -1e9",
        "tf.where([True, False], x, -1e9) + tf.where(tf.math.is_inf(y), 1e9, y)",
        {"x": single(1, 1), "y": single(0, INF)},
    ),
    Example(
        "Softmax",
        "tf.nn.softmax(x)",
        ("x",),
        "instead of -Inf: -1e9",
        "tf.nn.softmax(tf.where(tf.math.is_inf(x), -1e9, x))",
        {"x": single(-INF, -INF)},
    ),
    Example(
        "Softmax",
        "tf.nn.softmax(x)",
        ("x",),
        "instead of -Inf: tf.float16.min / 2",
        "tf.nn.softmax(tf.where(tf.math.is_inf(x), tf.cast(tf.float16.min / 2, tf.float16), x))",
        {"x": half([-INF, -INF])},
    ),
    Example(
        "Softmax",
        "tf.nn.softmax(x)",
        ("x",),
        "tf.clip_by_value(x, -1e4, 1e4)",
        "tf.nn.softmax(tf.clip_by_value(x, -1e4, 1e4))",
        {"x": single(INF, 1)},
    ),
    Example(
        "SparseSoftmaxCrossEntropyWithLogits",
        "tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x)",
        ("x", "labels"),
        "the largest label plus 1",
        "tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.zeros([2, 4]))",
        {"x": np.zeros([2, 3], np.float32), "labels": np.array([1, 3], np.int32)},
    ),
    Example(
        "SoftmaxCrossEntropyWithLogits",
        "tf.nn.softmax_cross_entropy_with_logits(y, x)",
        ("x", "y"),
        "-1e9",
        "tf.nn.softmax_cross_entropy_with_logits(y, tf.where(tf.math.is_inf(x), -1e9, x))",
        {"x": np.array([[-INF, 1]], np.float32), "y": np.array([[1, 0]], np.float32)},
    ),
    Example("Const", "tf.constant(-1e10, tf.float16)", (), "tf.float16.min / 2"),
    Example(
        "Mean",
        "tf.reduce_mean(x)",
        ("x",),
        "tf.reduce_sum(x) / tf.maximum(tf.cast(tf.size(x), x.dtype), 1)",
        data={"x": np.zeros([0], np.float32)},
    ),
    Example(
        "Max",
        "tf.reduce_max(x)",
        ("x",),
        "tf.concat([x, [0.0]], 0)",
        "tf.reduce_max(tf.concat([x, [0.0]], 0))",
        {"x": np.zeros([0], np.float32)},
    ),
    Example("CTCLoss", "ctc(2)", ("tf.zeros([2, 1, 3])",), "give the model more frames", "ctc(9)"),
    # Updates.
    Example(
        "ResourceApplyGradientDescent",
        "descent(tf.math.reciprocal(0.0), x)",
        ("tf.constant(float('inf'))", "x"),
        "step + 1",
        "descent(tf.math.reciprocal(0.0 + 1), x)",
        {"x": single(1, 0)},
        phase="update",
    ),
    Example(
        "ResourceApplyAdam",
        "adam(1e-8, x)",
        ("x", *["tf.constant(0.9, tf.float16)"] * 4, "tf.constant(1e-8, tf.float16)", "x"),
        "1e-3 in half precision",
        "adam(1e-3, x)",
        {"x": half([0, 1])},
        phase="update",
    ),
    Example(
        "ResourceApplyGradientDescent",
        "descent(1e10, x)",
        ("tf.constant(1e10)", "x"),
        "Lower the learning rate",
        "descent(1e-3, x)",
        {"x": single(1e30, 1)},
        phase="update",
    ),
    # Overflows.
    *overflows(),
    Example(
        "Cast",
        "tf.cast(x, tf.float16)",
        ("x",),
        "tf.cast(tf.float16.min / 2, tf.float16)",
        data={"x": np.float32(-1e10)},
    ),
    Example(
        "Cast",
        "tf.cast(x, tf.float16)",
        ("x",),
        "scale or clip them in the wider dtype first",
        "tf.cast(tf.clip_by_value(x, -6e4, 6e4), tf.float16)",
        {"x": single(1e5, 1)},
    ),
    *(
        Example(
            "FusedBatchNormV3",
            "batch_norm(x)",
            ("x",),
            advice,
            f"batch_norm({SCALED})",
            {"x": np.linspace(-1e25, 1e25, 8, dtype=np.float32).reshape(2, 2, 2, 1)},
            is_first_step=is_first,
        )
        for advice, is_first in (("scale the inputs", True), ("normalise earlier", False))
    ),
    Example(
        "FusedBatchNormV3",
        "batch_norm(x, tf.constant([-0.5]))",
        ("x", "tf.ones([1])", "tf.ones([1])", "tf.zeros([1])", "tf.constant([-0.5])"),
        "must not be below 0",
        "batch_norm(x, tf.constant([0.5]))",
        {"x": np.ones([2, 2, 2, 1], np.float32)},
    ),
]


def rule_of(example):
    link = example.link
    return next(rule for rule in RULES if rule.cause(link, is_first_step=example.is_first_step) is not None)


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{example.op}-{example.advice[:30]}" for example in EXAMPLES])
def test_the_fix_makes_the_example_finite(example):
    assert not np.isfinite(example.result).all()
    cause = rule_of(example).cause(example.link, is_first_step=example.is_first_step)
    assert example.advice in cause.fix
    assert np.isfinite(example.run(example.fixed or example.advice)).all()


def test_every_rule_has_an_example():
    with_example = {id(rule_of(example)) for example in EXAMPLES}
    assert [(rule.id, rule.fix) for rule in RULES if id(rule) not in with_example] == []


def test_no_fix_mentions_the_learning_rate_before_the_first_update():
    examples = [example for example in EXAMPLES if example.is_first_step]
    causes = [rule_of(example).cause(example.link, is_first_step=True) for example in examples]
    assert causes
    assert not any("learning rate" in cause.fix for cause in causes)
