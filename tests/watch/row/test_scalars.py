"""The scalars that an update multiplies by: a bad one withholds it, whichever way the step runs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, Watch

BAD = 3


class Rate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that is NaN from step 3 on, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, step):
        self.asked += 1
        return 0.1 * (1.0 - tf.cast(step, tf.float32) / 2.5) ** 0.9  # the line to be named


OPTIMIZERS = {
    "plain": keras.optimizers.SGD,
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "decay": keras.optimizers.AdamW,
    "average": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.9, use_ema=True),
    "scaled": lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate, momentum=0.9)),
    "summed": lambda rate: keras.optimizers.SGD(rate, gradient_accumulation_steps=2),
}
WAYS = [*((kind, False) for kind in OPTIMIZERS), ("decay", True), ("scaled", True)]


class Line:
    """A line that is trained, and its watch."""

    def __init__(self, logdir, optimizer, **options):
        self.weight, self.optimizer = keras.Variable([1.0, 2.0], name="weight"), optimizer
        self.watch = Watch(logdir, [self.weight], **options)
        optimizer.build([self.weight])

    def step(self, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(self.weight * x))
            scaled = self.optimizer.scale_loss(loss)
        pairs = [(tape.gradient(scaled, self.weight.value), self.weight)]
        self.watch.apply_gradients(self.optimizer, pairs, loss=loss)

    def trained(self, step, steps):
        for _ in range(steps):
            step(tf.constant([0.1, 0.1]))
        return self.weight.numpy().tolist()


@pytest.mark.parametrize(("kind", "jit_compile"), WAYS)
def test_the_update_is_withheld_and_the_schedule_named(tmp_path, kind, jit_compile):
    line = Line(tmp_path, OPTIMIZERS[kind](Rate()))
    step = line.watch.step(line.step, jit_compile=jit_compile)
    before = line.trained(step, BAD)
    with pytest.raises(NonFiniteError, match=f"The update of step {BAD} was withheld") as caught:
        line.trained(step, 1)
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.op.type) == (BAD, "update", "Pow")
    assert "bad-scalar" in [cause.id for cause in caught.value.verdict.causes]
    assert first.source.text.endswith("# the line to be named")
    assert line.weight.numpy().tolist() == before


@pytest.mark.parametrize("kind", ["momentum", "scaled", "summed"])
def test_a_skip_keeps_the_weights(tmp_path, kind, read):
    line = Line(tmp_path, OPTIMIZERS[kind](Rate()), policy="skip")
    step = line.watch.step(line.step)
    before = line.trained(step, BAD)
    assert line.trained(step, 2) == before
    line.watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.first.step, verdict.skipped_steps) == ("nonfinite", BAD, 2)


def test_in_an_eager_step_the_schedule_is_asked_as_often_as_without_a_watch(tmp_path):
    rate = Rate()
    line = Line(tmp_path, keras.optimizers.SGD(rate, momentum=0.9))
    before, asked = line.trained(line.step, BAD), rate.asked
    assert asked == BAD
    with pytest.raises(NonFiniteError, match=f"NaN was in a number that the update multiplies by.* step {BAD} was"):
        line.trained(line.step, 1)
    assert line.weight.numpy().tolist() == before
    assert "_get_current_learning_rate" not in vars(line.optimizer)


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_fit_keeps_the_weights(tmp_path, policy, run_eagerly):
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1, name="line")])
    model.compile(keras.optimizers.Adam(Rate()), "mse", run_eagerly=run_eagerly)
    x = np.ones([20, 3], "float32")

    def fit():
        model.fit(x, x[:, :1], batch_size=4, verbose=0, callbacks=[NanWatchCallback(tmp_path, policy=policy)])

    if policy == "skip":
        fit()
    else:
        with pytest.raises(NonFiniteError, match=f"The update of step {BAD} was withheld"):
            fit()
    assert np.isfinite(model.get_weights()[0]).all()


class Halves(keras.optimizers.SGD):
    """Divides by a number that is Inf: what is left of the gradient is 0, and a good step."""

    def update_step(self, gradient, variable, learning_rate):
        decay = 1.0 / tf.exp(100.0 + tf.cast(self.iterations, tf.float32))
        self.assign_sub(variable, learning_rate * (gradient / tf.exp(100.0 + tf.cast(self.iterations, tf.float32))))
        self.assign_sub(variable, decay * variable)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_an_infinity_that_only_divides_is_no_alarm(tmp_path, policy, read):
    line = Line(tmp_path, Halves(0.1), policy=policy)
    assert line.trained(line.watch.step(line.step), 3) == [1.0, 2.0]
    line.watch.close()
    assert read(tmp_path).verdict.status == "finite"


class Cautious(keras.optimizers.SGD):
    """Takes another rate, which is NaN, of large gradients alone."""

    def update_step(self, gradient, variable, learning_rate):
        is_large = tf.reduce_max(tf.abs(gradient)) > 1e3
        bad = learning_rate * (0.0 * tf.math.log(tf.cast(self.iterations, tf.float32) - 100.0))
        tf.cond(
            is_large,
            lambda: variable.assign_sub(bad * gradient),
            lambda: variable.assign_sub(learning_rate * gradient),
        )


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_scalar_of_a_branch_that_is_not_taken_is_no_alarm(tmp_path, policy, read):
    line = Line(tmp_path, Cautious(0.1), policy=policy)
    line.trained(line.watch.step(line.step), 3)
    line.watch.close()
    assert read(tmp_path).verdict.status == "finite"


class Abrupt(keras.optimizers.SGD):
    """Divides by what is left of the gradient: 0 / 0 where that is 0."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, learning_rate * gradient / tf.abs(gradient))


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_an_update_that_makes_the_weights_bad_itself_says_that_they_are_lost(tmp_path, policy):
    line = Line(tmp_path, Abrupt(0.1), policy=policy)
    step = line.watch.step(line.step)
    line.trained(step, 2)
    step(tf.constant([0.0, 0.1]))
    with pytest.raises(NonFiniteError, match="the weights are lost since step 2: restore a checkpoint") as caught:
        step(tf.constant([0.1, 0.1]))
    assert "withheld" not in str(caught.value)
    first = caught.value.verdict.first
    assert (caught.value.alert.action, first.step, first.phase, first.variable) == ("raised", 2, "update", "weight")
    assert caught.value.verdict.notes[0].startswith("The update of step 2 had run before that could be seen")


def test_weights_that_the_last_update_lost_raise_at_the_close_of_a_run_that_skips(tmp_path):
    line = Line(tmp_path, Abrupt(0.1), policy="skip")
    step = line.watch.step(line.step)
    line.trained(step, 1)
    step(tf.constant([0.0, 0.1]))
    with pytest.raises(NonFiniteError, match="the weights are lost since step 1"):
        line.watch.close()
