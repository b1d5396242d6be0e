"""Guarded updates: what a bad step does to its own update and to later ones."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.watch.guard.guard import MESSAGE
from tests.watch.guard.steps import RATE, Step

BAD = float("nan")


@pytest.fixture
def weight():
    return tf.Variable(0.0, name="layer/weight")


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
        assert step.plan.device_ring.incident() == 0
