"""The plan: what the first step fixes about all rows, and what later traces of the step may bring."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tests.watch.guard.steps import RATE, Step


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
        (row,), _ = step.plan.device_ring.rows(0, 1)
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
    (row,), _ = step.plan.device_ring.rows(0, 1)
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
        layout, ring = step.plan.layout, step.plan.device_ring
        step.take([1.0])
        assert (step.plan.layout, step.plan.device_ring) == (layout, ring)
        assert ring.rows_written() == 2

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
