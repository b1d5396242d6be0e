"""Infinities that a program holds on purpose are no alarm; what they make bad is, and a NaN always is."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, Watch


class Highest(keras.layers.Layer):
    """Keeps the largest input since it was reset to -Inf; from the step ``bad`` on it keeps NaN."""

    def __init__(self, bad=99, initial=-np.inf):
        super().__init__(name="highest")
        self.bad, self.initial = bad, initial

    def build(self, _):
        add = self.add_weight
        self.seen = add(shape=(), dtype="int32", initializer="zeros", trainable=False, name="seen")
        self.high = add(shape=(), initializer=keras.initializers.Constant(self.initial), trainable=False, name="high")

    def call(self, x):
        self.seen.assign_add(1)
        high = tf.where(self.seen % 3 == 0, -np.inf, tf.maximum(self.high, tf.reduce_max(x)))
        self.high.assign(tf.where(self.seen > self.bad, np.nan, high))
        return x


def model_with(layer):
    return keras.Sequential([keras.Input([4]), layer, keras.layers.Dense(1, name="line")], name="model")


def train(logdir, model, *, way, policy="raise"):
    x = np.ones([8, 4], "float32")
    if way == "fit":
        model.compile("sgd", "mse")
        callback = NanWatchCallback(logdir, policy=policy)
        model.fit(x, x[:, :1], batch_size=1, verbose=0, callbacks=[callback])
        return
    watch, optimizer, variables = Watch(logdir, policy=policy), keras.optimizers.SGD(0.01), model.trainable_variables

    @watch.step(jit_compile=way == "xla")
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True)))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        watch.apply_gradients(optimizer, zip(gradients, variables, strict=True), loss=loss)

    with watch:
        for row in x:
            step(tf.constant(row[None]))


@pytest.mark.parametrize("initial", [-np.inf, 0.0])
@pytest.mark.parametrize(("way", "policy"), [("step", "raise"), ("step", "skip"), ("xla", "raise"), ("fit", "raise")])
def test_a_layers_maximum_that_is_reset_to_minus_infinity_is_no_alarm(tmp_path, way, policy, initial, read):
    train(tmp_path, model_with(Highest(initial=initial)), way=way, policy=policy)
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen, verdict.skipped_steps) == ("finite", 8, 0)


def test_a_layers_state_that_turns_to_nan_is_an_alarm(tmp_path):
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path, model_with(Highest(bad=4)), way="step")
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.kind) == (4, "state", "nan")


def transitions(logdir, *, steps, uses_all=False, overwrites=False):
    """A layer of transitions, of which one is forbidden, and what a few steps make of them."""
    scores = tf.Variable([[0.5, -np.inf], [0.1, 0.2]], name="crf/transitions")
    watch, optimizer = Watch(logdir, [scores]), keras.optimizers.SGD(0.1)

    @watch.step
    def step(x):
        with tf.GradientTape() as tape:
            allowed = tf.nn.softmax(scores * x if not uses_all else scores - scores * x, axis=1)
            loss = tf.reduce_sum(tf.square(allowed))
        watch.apply_gradients(optimizer, [(tape.gradient(loss, scores), scores)], loss=loss)

    with watch:
        for _ in range(steps):
            step(tf.constant(1.0))
        if overwrites:
            scores.assign([[np.inf, -np.inf], [0.1, 0.2]])
    return scores


NOTE = "takes the Inf in 1 of 4 elements of 'crf/transitions' as intended"


def test_a_trained_variable_that_holds_minus_infinity_is_noted_once(tmp_path, read):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transitions(tmp_path, steps=4)
    assert [NOTE in str(one.message) for one in caught] == [True]
    assert read(tmp_path).verdict.status == "finite"


def test_a_gradient_that_such_a_variable_makes_non_finite_is_an_alarm(tmp_path):
    with pytest.warns(UserWarning, match=NOTE), pytest.raises(NonFiniteError) as caught:
        transitions(tmp_path, steps=2, uses_all=True)
    assert caught.value.verdict.first.step == 0


def test_another_element_of_it_that_turns_to_infinity_is_an_alarm(tmp_path):
    with pytest.warns(UserWarning, match=NOTE), pytest.raises(NonFiniteError, match=r"\+Inf.*crf/transitions"):
        transitions(tmp_path, steps=2, overwrites=True)
