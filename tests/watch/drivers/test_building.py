"""An optimizer that is not built is built as its own first update would."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import Watch


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
    """An optimizer of the user's that holds another one, and builds it in its update."""

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


def test_what_a_user_watches_of_a_built_optimizer_is_watched_though_the_first_trace_had_none(tmp_path, read):
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
