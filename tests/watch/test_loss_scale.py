"""Loss scales that change by themselves: an overflow is a skipped step, a scale that collapses is an alert."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch

STEPS = 40


class HalfPrecision:
    """Two layers in float16, and a loss that may have a slope that is not finite at any scale."""

    def __init__(self, *, scale: float) -> None:
        keras.utils.set_random_seed(3)
        self.model = keras.Sequential(
            [
                keras.layers.Dense(32, "relu", name="hidden", dtype="mixed_float16"),
                keras.layers.Dense(1, name="head", dtype="float32"),
            ]
        )
        self.model.build((None, 3))
        self.variables = self.model.trainable_variables
        self.optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(1e-3), initial_scale=scale, dynamic_growth_steps=10
        )
        self.optimizer.build(self.variables)
        random = np.random.default_rng(0)
        self.x = tf.constant(random.normal(size=(64, 3)), tf.float32) * 10
        self.y = tf.constant(random.normal(size=(64, 1)), tf.float32)
        self.is_bent = tf.Variable(0.0, trainable=False)

    def trained_by(self, watch, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(x, training=True) - y))
            # The slope of a root is Inf at 0.
            loss += 0.0 * tf.reduce_sum(tf.where(self.is_bent > 0.0, self.variables[0] * 0.0, 1.0) ** 0.5)
            scaled = self.optimizer.scale_loss(loss)
        pairs = list(zip(tape.gradient(scaled, self.variables), self.variables, strict=True))
        if watch is None:
            self.optimizer.apply_gradients(pairs)
        else:
            watch.apply_gradients(self.optimizer, pairs, loss=loss)

    def weights(self):
        return [variable.numpy() for variable in (*self.variables, *self.optimizer.variables)]


def many(step, net):
    for _ in range(STEPS):
        step(net.x, net.y)


def test_an_overflow_is_a_skipped_step_and_norms_are_without_the_scale(tmp_path, read):
    watch, net, bare = Watch(tmp_path), HalfPrecision(scale=2.0**24), HalfPrecision(scale=2.0**24)
    step = watch.step(lambda x, y: net.trained_by(watch, x, y))
    bare_step = tf.function(lambda x, y: bare.trained_by(None, x, y))
    for _ in range(STEPS):
        step(net.x, net.y)
        bare_step(net.x, net.y)
    watch.close()
    assert all(np.array_equal(a, b) for a, b in zip(net.weights(), bare.weights(), strict=True))
    back = read(tmp_path)
    skipped, scales = back.column("skipped").ravel(), back.column("loss_scale").ravel()
    assert back.verdict.status == "finite"
    assert back.verdict.skipped_steps == skipped.sum() > 5
    assert f"the update of {int(skipped.sum())} was left out" in back.verdict.text
    assert scales[0] == 2.0**24
    assert (scales[1:][skipped[:-1] == 1] == scales[:-1][skipped[:-1] == 1] / 2).all()
    norms = back.column("global_norm").ravel()
    assert np.isnan(norms[skipped == 1]).all()
    assert (norms[skipped == 0] < 100).all()


def test_a_gradient_that_no_scale_keeps_finite_is_reported_at_its_first_step(tmp_path, read):
    watch, net = Watch(tmp_path), HalfPrecision(scale=2.0**10)
    step = watch.step(lambda x, y: net.trained_by(watch, x, y))
    for _ in range(6):
        step(net.x, net.y)
    net.is_bent.assign(1.0)
    with pytest.raises(NonFiniteError) as caught:
        many(step, net)
    verdict = caught.value.verdict
    assert (verdict.first.step, verdict.first.phase, verdict.first.op.type) == (6, "backward", "Pow")
    assert (verdict.skipped_steps, verdict.steps_seen) == (10, 17)
    assert any("at step 16 it was 1" in note for note in verdict.notes)
    watch.close()
    assert read(tmp_path).verdict.first.step == 6


def test_a_non_finite_loss_is_not_blamed_on_the_scale(tmp_path):
    watch, net = Watch(tmp_path), HalfPrecision(scale=2.0**10)
    step = watch.step(lambda x, y: net.trained_by(watch, x, y))
    step(net.x, net.y)
    with pytest.raises(NonFiniteError, match=r"^Step 1: \+Inf was in the input y"):
        step(net.x, net.y * np.inf)


@pytest.mark.parametrize("is_decorated", [True, False])
def test_the_step_that_builds_the_optimizer_does_not_keep_its_first_scale(tmp_path, read, is_decorated):
    weight = keras.Variable([1.0], name="weight")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.25), initial_scale=8.0, dynamic_growth_steps=1
    )
    watch = Watch(tmp_path, [weight])

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight.value)
            scaled = optimizer.scale_loss(loss)
        watch.apply_gradients(optimizer, zip(tape.gradient(scaled, [weight.value]), [weight], strict=True), loss=loss)

    trained = watch.step(step) if is_decorated else tf.function(step)
    for _ in range(4):
        trained()
        watch.after_step()
    watch.close()
    assert (float(weight.value[0]), float(optimizer.dynamic_scale)) == (0.0, 128.0)
    assert read(tmp_path).column("grad_norm").ravel().tolist() == [1.0] * 4


def test_a_first_scale_that_overflows_in_the_step_that_builds_is_lowered(tmp_path, read):
    weight = keras.Variable(tf.ones([2], tf.float16), dtype="float16", name="weight")
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=2.0**17)
    watch = Watch(tmp_path, [weight])

    @watch.step
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(weight.value, tf.float32))
            scaled = optimizer.scale_loss(loss)
        watch.apply_gradients(optimizer, zip(tape.gradient(scaled, [weight.value]), [weight], strict=True), loss=loss)

    with watch:
        for _ in range(4):
            step()
    assert read(tmp_path).verdict.status == "finite"
    assert (weight.numpy().tolist(), float(optimizer.dynamic_scale)) == ([0.0, 0.0], 2.0**15)
