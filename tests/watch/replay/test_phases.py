"""The phase of an operation and the variable that it works for, from what the loss and the gradients depend on."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.replay import Evidence, ReplayLimits, current_trial
from tb_nanwatch.watch.replay.function_trace import FunctionTracer
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.phases import Phases
from tb_nanwatch.watch.replay.walk import Visit
from tb_nanwatch.watch.row.inputs import StepInputs


class Step:
    """A step over two variables, and a third that is not watched."""

    def __init__(self):
        self.weight, self.bias = tf.Variable(2.0, name="dense/weight"), tf.Variable(1.0, name="dense/bias")
        self.scale = tf.Variable(3.0, name="scale", trainable=False)
        variables = [self.weight, self.bias]
        evidence = Evidence(variables, describe(variables, [None, None], Owners()))
        self.trace = next(
            FunctionTracer(Call(self.run, (tf.constant([1.0, 2.0]),), {}), None).traces(evidence, ReplayLimits())
        )

    def run(self, x):
        with tf.GradientTape() as tape:
            hidden = tf.tanh(x * self.weight + self.bias)
            loss = tf.reduce_mean(tf.math.log(hidden) * self.scale)
        raw = tape.gradient(loss, [self.weight, self.bias])
        clipped = [tf.atan(gradient) for gradient in raw]
        pairs = list(zip(clipped, [self.weight, self.bias], strict=True))
        current_trial().apply(StepInputs(pairs, raw, loss, None), lambda pairs: None)
        tf.sin(loss)

    def phases(self, *, is_loss_bad=True):
        return Phases(Names(self.trace), self.trace.updates[0], is_loss_bad=is_loss_bad)

    def visits(self, kind):
        nodes = [node for node in self.trace.flow.nodes if node.op.type == kind]
        return [Visit(node, None, 0, None, None) for node in nodes]

    def outside(self, wanted):
        """The visit to a value from outside."""
        traced = self.trace.traced
        (found,) = [tensor for tensor in traced.graph.inputs if traced.fed[tensor.name] is wanted]
        return Visit(None, None, 0, found, None)


@pytest.fixture(scope="module")
def step():
    return Step()


@pytest.mark.parametrize(
    ("kind", "stage", "phase"),
    [
        ("AddV2", "forward", "forward"),
        ("Tanh", "forward", "loss"),
        ("Log", "forward", "loss"),
        ("Mean", "forward", "loss"),
        ("AddV2", "backward", "forward"),
        ("TanhGrad", "backward", "backward"),
        ("TanhGrad", "clip", "backward"),
        ("Atan", "clip", "clip"),
        ("Atan", "update", "update"),
        ("Tanh", "state", "state"),
    ],
)
def test_an_operation_has_the_phase_of_what_depends_on_it(step, kind, stage, phase):
    (visit, *_) = step.visits(kind)
    assert step.phases().phase_of(visit, stage) == phase


def test_no_operation_of_a_finite_loss_is_of_the_loss(step):
    (visit,) = step.visits("Log")
    assert step.phases(is_loss_bad=False).phase_of(visit, "forward") == "forward"


def test_a_value_from_outside_is_input_weights_or_state(step):
    phases = step.phases()
    (argument,) = step.trace.traced.values.values()
    assert phases.phase_of(step.outside(argument), "forward") == "input"
    assert phases.phase_of(step.outside(step.weight.handle), "forward") == "weights"
    assert phases.phase_of(step.outside(step.scale.handle), "forward") == "state"


def test_a_constant_is_input_but_a_setting_of_the_update(step):
    (visit, *_) = step.visits("Const")
    assert step.phases().phase_of(visit, "backward") == "input"
    assert step.phases().phase_of(visit, "update") == "update"


def test_an_operation_that_one_gradient_depends_on_works_for_its_variable(step):
    of_weight, of_bias = step.visits("Atan")
    assert [step.phases().place_of_variable(visit, "clip") for visit in (of_weight, of_bias)] == [0, 1]


def test_an_operation_that_several_gradients_depend_on_works_for_no_variable(step):
    (visit, *_) = step.visits("TanhGrad")
    assert step.phases().place_of_variable(visit, "backward") is None
