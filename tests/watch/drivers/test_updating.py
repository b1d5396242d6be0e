"""Optimizers written by hand, as TensorFlow's own guides show them, are called as they want to be."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.drivers.optimizer import UpdateMethod


class TwoLists(tf.Module):
    """Momentum, with slots that the first update makes."""

    def __init__(self):
        super().__init__()
        self.built = False
        self.slots = []

    def apply_gradients(self, grads, variables):
        if not self.built:
            self.slots = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
            self.built = True
        for grad, variable, slot in zip(grads, variables, self.slots, strict=True):
            slot.assign(0.9 * slot + grad)
            variable.assign_sub(0.1 * slot)


class ByApply(TwoLists):
    apply = TwoLists.apply_gradients
    apply_gradients = None


class Compiled(TwoLists):
    @tf.function
    def apply_gradients(self, grads, variables):
        for grad, variable in zip(grads, variables, strict=True):
            variable.assign_sub(0.1 * grad)


class Pairs:
    """No optimizer of Keras, around one."""

    def __init__(self):
        self.inner = keras.optimizers.Adam(0.1)

    def apply_gradients(self, grads_and_vars):
        self.inner.apply_gradients(grads_and_vars)


def step_of(optimizer, weight, watch=None):
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(weight) * x)
        gradients = tape.gradient(loss, [weight])
        if watch is not None:
            watch.apply_gradients(optimizer, zip(gradients, [weight], strict=True), loss=loss)
        elif isinstance(optimizer, Pairs):
            optimizer.apply_gradients(zip(gradients, [weight], strict=True))
        else:
            (optimizer.apply_gradients or optimizer.apply)(gradients, [weight])

    return step


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("make", [TwoLists, ByApply, Compiled, Pairs])
def test_an_optimizer_written_by_hand_trains_as_it_does_bare_and_is_guarded(make, policy, tmp_path):
    weights = [tf.Variable([1.0, 2.0], name="weight") for _ in range(2)]
    watch = Watch(tmp_path, policy=policy)
    bare, step = tf.function(step_of(make(), weights[0])), watch.step(step_of(make(), weights[1], watch))
    for _ in range(3):
        bare(tf.constant(1.0))
        step(tf.constant(1.0))
    assert np.array_equal(weights[0].numpy(), weights[1].numpy())
    if policy == "raise":
        with pytest.raises(NonFiniteError):
            step(tf.constant(np.nan))
    else:
        step(tf.constant(np.nan))
    assert np.array_equal(weights[0].numpy(), weights[1].numpy())


def test_eager_steps_call_it_so_too(tmp_path):
    weight = tf.Variable([1.0], name="weight")
    watch = Watch(tmp_path)
    step_of(TwoLists(), weight, watch)(tf.constant(1.0))
    assert weight.numpy() == pytest.approx([0.8])


class Demanding:
    def apply_gradients(self, grads, variables, rate):
        raise AssertionError


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (object(), "got a object, which has neither method"),
        (Demanding(), "that of Demanding needs grads, variables, rate"),
    ],
)
def test_what_an_optimizer_needs_is_said(optimizer, message):
    with pytest.raises(SetupError, match=message):
        UpdateMethod.of(optimizer)
