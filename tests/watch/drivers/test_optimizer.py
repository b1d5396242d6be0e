"""Optimizers written by hand are called as they ask; an unbuilt optimizer is built as by its own first update."""

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
    """An optimizer of the user around an optimizer of Keras."""

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
def test_an_optimizer_written_by_hand_trains_like_a_bare_run_and_is_guarded(make, policy, tmp_path):
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


def test_eager_steps_call_it_the_same_way(tmp_path):
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
def test_the_error_names_what_an_optimizer_needs(optimizer, message):
    with pytest.raises(SetupError, match=message):
        UpdateMethod.of(optimizer)


def trained(make, watch=None, **options):
    """Return the weight after three steps, and how many variables the optimizer had at each trace."""
    weight, optimizer, traces = keras.Variable([1.0, 2.0], name="weight"), make(), []

    def step():
        traces.append(len(optimizer.variables))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(weight.value))
        pairs = list(zip(tape.gradient(loss, [weight.value]), [weight], strict=True))
        if watch is None:
            optimizer.apply_gradients(pairs)
        else:
            watch.apply_gradients(optimizer, pairs, loss=loss)

    compiled = tf.function(step, **options) if watch is None else watch.step(step, **options)
    for _ in range(3):
        compiled()
    return weight.numpy(), traces


class Holder(keras.optimizers.SGD):
    """An optimizer of the user that holds another optimizer, and builds it in its update."""

    def __init__(self):
        super().__init__(0.1)
        self.inner = keras.optimizers.Adam(0.1)

    def apply(self, grads, trainable_variables=None):
        self.inner.apply(grads, trainable_variables)


MADE = {
    "adafactor": lambda: keras.optimizers.Adafactor(0.05),
    "averaged": lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "accumulating": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "scheduled": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), momentum=0.9),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
    "holder": Holder,
}


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("name", MADE)
def test_a_step_that_builds_its_optimizer_is_traced_as_often_as_bare(name, policy, tmp_path, read):
    weight, traces = trained(MADE[name])
    watch = Watch(tmp_path, policy=policy)
    watched, watched_traces = trained(MADE[name], watch)
    watch.close()
    assert np.array_equal(watched, weight)
    assert watched_traces == traces
    assert len(traces) == 2
    assert read(tmp_path).verdict.steps_seen == 3


def test_a_tensor_that_only_the_second_trace_makes_is_watched(tmp_path, read):
    weight, optimizer = keras.Variable([3.0], name="weight"), keras.optimizers.SGD(1.0, momentum=0.5)
    watch = Watch(tmp_path)

    @watch.step
    def step():
        for slot in optimizer.variables[2:]:
            watch.tensor("momentum", tf.identity(slot.value))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight.value)
        watch.apply_gradients(optimizer, zip(tape.gradient(loss, [weight.value]), [weight], strict=True), loss=loss)

    for _ in range(3):
        step()
    watch.close()
    assert read(tmp_path).column("tensor_norm").ravel().tolist() == [0.0, 1.0, 1.5]


def test_replaying_a_step_before_the_first_needs_no_built_optimizer(tmp_path):
    weight, optimizer = keras.Variable([0.0], name="weight"), keras.optimizers.Adafactor(0.1)
    watch = Watch(tmp_path)

    @watch.step
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.math.log(weight.value * x))
        watch.apply_gradients(optimizer, zip(tape.gradient(loss, [weight.value]), [weight], strict=True), loss=loss)

    assert watch.replay_step(tf.constant([1.0])).first.op.type == "Log"
