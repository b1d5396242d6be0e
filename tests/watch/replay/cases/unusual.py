"""Origins that a check of floats only, of one graph only or of TensorFlow's own code only would miss."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay import training
from tests.watch.replay.case import FORWARD_OR_LOSS, origin

train = partial(training.train, make_optimizer=lambda: tf.compat.v1.train.GradientDescentOptimizer(0.0))


# The spectrum of a constant signal has zeros. There the quotient of two spectra is 0 / 0, in complex numbers.
@origin(step=1, phase=FORWARD_OR_LOSS, op="RealDiv", line="quotient of spectra")
def complex_division_of_spectra(logdir):
    def response(gain, signal):
        spectrum = tf.signal.rfft(signal)
        quotient = tf.signal.rfft(gain * signal) / spectrum  # origin: quotient of spectra
        return tf.reduce_mean(tf.abs(quotient))

    train(logdir, response, [[1.0, 2.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0]], weight=2.0)


@origin(step=1, phase=FORWARD_OR_LOSS, op="Exp", line="exp in bfloat16")
def exp_in_bfloat16(logdir):
    def loss_of(scale, x):
        powers = tf.exp(tf.cast(x, tf.bfloat16) * scale)  # origin: exp in bfloat16
        return tf.reduce_mean(tf.cast(powers, tf.float32))

    train(logdir, loss_of, [[1.0, 2.0], [1.0, 100.0]], dtype="bfloat16")


# A double holds 1e200, a float does not.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Cast", line="cast from double")
def cast_from_double_that_overflows(logdir):
    def loss_of(scale, x):
        likelihood = tf.reduce_prod(tf.cast(x, tf.float64) ** 100)
        return scale * tf.cast(likelihood, tf.float32)  # origin: cast from double

    train(logdir, loss_of, [[1.0, 1.01], [10.0, 10.0]])


@origin(step=1, phase=FORWARD_OR_LOSS, op="RealDiv", line="mean of ragged rows")
def mean_of_an_empty_ragged_row(logdir):
    def loss_of(scale, lengths):
        rows = tf.RaggedTensor.from_row_lengths(tf.range(4.0) * scale, lengths)
        means = tf.reduce_mean(rows, axis=1)  # origin: mean of ragged rows
        return tf.reduce_sum(means)

    train(logdir, loss_of, [[1, 2, 1], [2, 0, 2]])


@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log in vectorized_map")
def log_in_vectorized_map(logdir):
    def loss_of(scale, rows):
        logs = tf.vectorized_map(lambda row: tf.reduce_sum(tf.math.log(row)), rows)  # origin: log in vectorized_map
        return scale * tf.reduce_sum(logs)

    train(logdir, loss_of, [[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [0.0, 4.0]]])


def reward(actions):
    """Return the answer of a simulator outside TensorFlow."""
    with np.errstate(divide="ignore"):
        return (1.0 / actions).astype("float32")


@origin(step=1, phase=FORWARD_OR_LOSS, op={"PyFunc", "EagerPyFunc", "PyFuncStateless"}, line="reward of a simulator")
def reward_from_numpy(logdir):
    def loss_of(scale, actions):
        rewards = tf.numpy_function(reward, [actions], tf.float32)  # origin: reward of a simulator
        return scale * tf.reduce_sum(tf.ensure_shape(rewards, (2,)))

    train(logdir, loss_of, [[1.0, 2.0], [1.0, 0.0]])


@tf.function(jit_compile=True)
def log_likelihood(x):
    shifted = x - 1.0
    return tf.reduce_sum(tf.math.log(shifted))  # origin: log in a function that XLA compiles


# Nothing reports inside a function that XLA compiled.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log in a function that XLA compiles")
def log_in_a_nested_function_that_xla_compiles(logdir):
    train(logdir, lambda scale, x: log_likelihood(scale * x), [[2.0, 3.0], [2.0, 1.0]])


@origin(step=2, phase=FORWARD_OR_LOSS, op="Sqrt", line="root in the chosen of three branches")
def root_in_one_of_several_branches(logdir):
    def loss_of(scale, x):
        branches = [
            lambda: tf.reduce_sum(scale * x),
            lambda: tf.reduce_sum(tf.math.log(x)) * scale,
            lambda: tf.reduce_sum(tf.sqrt(x)) * scale,  # origin: root in the chosen of three branches
        ]
        return tf.switch_case(tf.cast(x[0], tf.int32), branches)

    train(logdir, loss_of, [[0.0, -1.0], [1.0, 2.0], [2.0, -1.0]])


# One loss for each sample.
@origin(step=1, phase="loss", op="RealDiv", line="a loss for each sample", samples=(2,))
def one_loss_for_each_sample(logdir):
    def loss_of(scale, x):
        return scale / x  # origin: a loss for each sample

    train(logdir, loss_of, [[1.0, 2.0, 3.0], [1.0, 2.0, 0.0]], name="scale")


@tf.function
def log_density(x, deviation):
    return -((x / deviation) ** 2) - tf.math.log(deviation)  # origin: density of deviation 0


# The function has one graph and is called twice in the step; the second call goes bad: 0 / 0, and before it the log.
@origin(step=1, phase=FORWARD_OR_LOSS, op={"RealDiv", "Log"}, line="density of deviation 0")
def second_call_of_one_graph(logdir):
    def loss_of(scale, x):
        well = log_density(x[0], scale)
        return well - log_density(x[0], scale * x[1])

    train(logdir, loss_of, [[1.0, 2.0], [0.0, 0.0]])


# Each Python number traces the step anew, and the trace for 0 goes bad.
@origin(step=2, phase=FORWARD_OR_LOSS, layer="model", op="RealDiv", line="a Python number of 0")
def python_number_that_is_traced_anew(logdir):
    weight = tf.Variable([1.0, -2.0], name="model/weight")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x, *, temperature=1.0):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(x * (weight / temperature))  # origin: a Python number of 0
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for temperature in (1.0, 0.5, 0.0):
            train_step(tf.constant([1.0, 2.0]), temperature=temperature)


# A tensor made outside the step is no argument, no variable and no operation of the step.
@origin(
    step=0,
    phase="input",
    layer="model",
    line="tensor from outside",
    tensor="outside",
    way="captured",
)
def tensor_from_outside_the_step(logdir):
    with np.errstate(divide="ignore"):
        outside = tf.constant(8 / np.bincount([0, 1, 1, 0], minlength=3), tf.float32)

    def loss_of(weight, x):
        return tf.reduce_sum(outside * weight * x)  # origin: tensor from outside

    train(logdir, loss_of, [[1.0, 2.0, 3.0]])


# Two players, two optimizers, two watches. This case reads the generator's.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log of a fooled discriminator")
def two_players_with_a_watch_each(logdir):
    discriminator = tf.Variable(1.0, name="discriminator/weight")
    generator = tf.Variable(2.0, name="generator/weight")
    watch = Watch(logdir, [generator])
    other = Watch(Path(logdir) / "discriminator", [discriminator])
    optimizers = keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0)

    @other.step
    @watch.step
    def train_step(real, noise):
        with tf.GradientTape(persistent=True) as tape:
            fake = generator * noise
            believed = tf.sigmoid(discriminator * fake)
            loss = tf.reduce_mean(tf.math.log(1.0 - believed))  # origin: log of a fooled discriminator
            loss_of_other = tf.reduce_mean(tf.nn.softplus(-discriminator * real) + tf.stop_gradient(believed))
        pairs = [(tape.gradient(loss_of_other, discriminator), discriminator)]
        other.apply_gradients(optimizers[1], pairs, loss=loss_of_other)
        pairs = [(tape.gradient(loss, generator), generator)]
        watch.apply_gradients(optimizers[0], pairs, loss=loss)

    with other, watch:
        train_step(tf.ones(3), tf.constant([0.1, 0.2, 0.3]))
        train_step(tf.ones(3), tf.constant([0.1, 0.2, 30.0]))
