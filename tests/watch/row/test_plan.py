"""The plan: what the first step fixes about all rows, and what later traces of the step may bring."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.guard.guard import MESSAGE
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.plan import Plan

BAD = float("nan")
RATE = 1.0
"""The constant that an update adds; a row has one cell for the constants of its update."""


class Step:
    """A compiled step over scalar variables, one ``apply_gradients`` of a plan that adds a constant to each."""

    def __init__(self, *variables, policy="raise", listed=(), run=1, jit_compile=False):
        self.variables, self.run_number = variables, run
        self.plan = Plan(listed, window=8, policy=policy)
        self.trace = tf.function(self._trace, jit_compile=jit_compile, autograph=False)

    def _trace(self, gradients, *, clip=None, loss=None, tensors=()):
        for name, value in tensors:
            self.plan.tensors.add(name, value)
        clipped = gradients if clip is None else clip(gradients)
        inputs = StepInputs.checked(
            [*zip(clipped, self.variables, strict=True)],
            raw=None if clip is None else gradients,
            loss=loss,
            step=None,
        )
        self.plan.guarded(inputs, self._update, run=self.run_number)

    def _update(self):
        for variable in self.variables:
            variable.assign_add(RATE)

    def take(self, *gradients, **given):
        self.trace([tf.constant(gradient) for gradient in gradients], **given)

    @property
    def names(self):
        return [variable.name for variable in self.plan.layout.variables]


@pytest.fixture
def weight():
    return tf.Variable(0.0, name="layer/weight")


@pytest.fixture
def bias():
    return tf.Variable(0.0, name="layer/bias")


class TestTheFirstStep:
    def test_fixes_the_variables_and_whether_there_is_a_loss(self, weight, bias):
        step = Step(weight, bias)
        step.take(1.0, 2.0, loss=tf.constant(3.0))
        layout = step.plan.layout
        assert (step.names, layout.loss, layout.clip) == (["layer/weight", "layer/bias"], True, "none")
        assert [cell.role for cell in layout.cells] == ["gradient"] * 2 + ["weight"] * 2 + ["scalar", "loss"]

    def test_leaves_a_row_of_its_layout(self, weight):
        step = Step(weight)
        step.take(2.0, loss=tf.constant(3.0))
        (row,), _ = step.plan.recorder.rows(0, 1)
        assert row.tolist() == [2.0, 0.0, RATE, 3.0]

    def test_lists_the_users_variables_first_and_warns_of_others(self, weight, bias):
        step = Step(weight, bias, listed=[bias])
        with pytest.warns(UserWarning, match="not among those it was given: layer/weight"):
            step.take(1.0, 2.0)
        assert step.names == ["layer/bias", "layer/weight"]

    def test_lists_expected_variables_before_those_of_the_update(self, weight, bias):
        step = Step(weight, bias)
        step.plan.expect([bias])
        step.take(1.0, 2.0)
        assert step.names == ["layer/bias", "layer/weight"]


def halved(gradients):
    return [gradient * 0.5 for gradient in gradients]


def limited(gradients):
    return [tf.minimum(gradient, 1.0) for gradient in gradients]


@pytest.mark.parametrize(
    ("clip", "kind"), [(None, "none"), (halved, "scale"), (limited, "other")], ids=["none", "scale", "other"]
)
def test_the_clip_kind_says_whether_clipping_multiplies_by_a_scalar(weight, clip, kind):
    step = Step(weight)
    step.take(4.0, clip=clip)
    assert step.plan.layout.clip == kind
    (row,), _ = step.plan.recorder.rows(0, 1)
    clipped = {"none": [], "scale": [2.0], "other": [0.5]}[kind]
    assert row.tolist() == [8.0, *clipped, 0.0, RATE]


class TestASecondTrace:
    def test_must_give_its_loss_if_the_first_did(self, weight):
        step = Step(weight)
        step.take(1.0, loss=tf.constant(3.0))
        with pytest.raises(SetupError, match="loss must be given to every apply_gradients of a watch, or to none"):
            step.take(1.0)

    def test_keeps_the_layout_and_the_ring_of_the_first(self, weight):
        step = Step(weight)
        step.take(1.0)
        layout, recorder = step.plan.layout, step.plan.recorder
        step.take([1.0])
        assert (step.plan.layout, step.plan.recorder) == (layout, recorder)
        assert recorder.rows_written() == 2

    def test_that_updates_a_new_variable_warns_and_leaves_it_out(self, weight, bias):
        step = Step(weight)
        step.take(1.0)
        step.variables = (weight, bias)
        with pytest.warns(UserWarning, match="does not watch variable 'layer/bias': it came after the first step"):
            step.take(1.0, 2.0)
        assert step.names == ["layer/weight"]

    def test_that_clips_for_the_first_time_warns(self, weight):
        step = Step(weight)
        step.take(1.0)
        with pytest.warns(UserWarning, match="does not watch clipping that came after the first step"):
            step.take(1.0, clip=halved)

    def test_that_says_the_same_warns_once(self, weight, recwarn):
        step = Step(weight)
        step.take(1.0)
        with pytest.warns(UserWarning, match="does not watch clipping"):
            step.take(1.0, clip=halved)
        step.take([1.0], clip=halved)
        assert [str(warning.message) for warning in recwarn if "tb_nanwatch" in str(warning.message)] == []


class TestABadStep:
    def test_stops_where_the_call_catches_what_the_guard_raises(self, weight):
        step = Step(weight)
        with pytest.raises(tf.errors.InvalidArgumentError, match=MESSAGE):
            step.take(BAD)
        assert (step.plan.polls, weight.numpy()) == (False, 0.0)

    @pytest.mark.parametrize(("run", "jit_compile"), [(0, False), (1, True)])
    def test_withholds_updates_where_no_call_can_catch_an_error(self, weight, run, jit_compile):
        step = Step(weight, run=run, jit_compile=jit_compile)
        step.take(BAD)
        step.take(1.0)
        assert (step.plan.polls, weight.numpy()) == (True, 0.0)

    @pytest.mark.parametrize(("policy", "left"), [("skip", RATE), ("record", 2 * RATE)])
    def test_is_left_out_or_let_through_as_the_policy_says(self, weight, policy, left):
        step = Step(weight, policy=policy)
        step.take(BAD)
        step.take(1.0)
        assert weight.numpy() == left
        assert step.plan.recorder.incident() == 0
