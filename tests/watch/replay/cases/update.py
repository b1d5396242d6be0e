"""Finite gradients that an optimizer makes something bad of, and statistics that go bad beside a finite loss."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import origin


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    """One over the step, which the first step, 0, has none of."""

    def __call__(self, step):
        return 0.1 / tf.cast(step, tf.float32)  # origin: learning rate of step 0


def regression(*, dtype="float32"):
    """Four rows of two features, what they should give, and a variable to learn."""
    random = np.random.default_rng(5)
    x, y = random.normal(size=(4, 2)), random.normal(size=4)
    return tf.constant(x, dtype), tf.constant(y, dtype), tf.Variable(tf.ones(2, dtype), name="linear/kernel")


def train(watch, optimizer, *, x, y, kernel, steps):
    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.linalg.matvec(x, kernel) - y) ** 2)
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)  # origin: update of a linear model

    with watch:
        for _ in range(steps):
            train_step(x, y)


@origin(step=0, phase="update", op="RealDiv", line="learning rate of step 0", layer={"linear", None})
def learning_rate_that_is_inf_at_step_0(logdir):
    x, y, kernel = regression()
    train(Watch(logdir), keras.optimizers.SGD(Decay()), x=x, y=y, kernel=kernel, steps=3)


# In float16 an epsilon of 1e-8 is 0, and so is 0.001 * g ** 2 of a gradient g below 5e-3: m / (sqrt(v) + 0) is m / 0.
@origin(step=0, phase="update", op="RealDiv", line="update of a linear model", layer="linear", variable="linear/kernel")
def adam_in_float16(logdir):
    x, y, kernel = regression(dtype="float16")
    x, y = x * 0.02, y * 0.1
    optimizer = keras.optimizers.Adam(1e-2, epsilon=1e-8)
    train(Watch(logdir, [kernel]), optimizer, x=x, y=y, kernel=kernel, steps=2)


# A feature that never occurs has gradient 0: 0 / (sqrt(0) + 0).
@origin(step=0, phase="update", op="RealDiv", line="update of a linear model", layer="linear", variable="linear/kernel")
def adam_without_epsilon_and_a_gradient_of_0(logdir):
    x, y, kernel = regression()
    x *= [1.0, 0.0]
    optimizer = keras.optimizers.Adam(1e-3, epsilon=0.0)
    train(Watch(logdir, [kernel]), optimizer, x=x, y=y, kernel=kernel, steps=2)


# For a constant gradient, the mean of squares and the square of the mean become equal except for rounding. Their
# difference may be below 0, and its root is NaN. Among 512 columns some are below 0 as soon as both are close enough.
@origin(
    step=22, phase="update", op="Sqrt", line="update of a constant gradient", layer="linear", variable="linear/bias"
)
def centred_rmsprop_with_a_negative_variance(logdir):
    bias = tf.Variable(tf.zeros(512), name="linear/bias")
    prices = tf.constant(np.linspace(1e3, 2e3, 512), tf.float32)
    optimizer = keras.optimizers.RMSprop(1e-3, rho=0.5, centered=True)
    watch = Watch(logdir, [bias])

    @watch.step
    def train_step():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_sum(prices * bias)
        pairs = zip(tape.gradient(loss, [bias]), [bias])
        watch.apply_gradients(optimizer, pairs, loss=loss)  # origin: update of a constant gradient

    with watch:
        for _ in range(60):
            train_step()


# The squares of 1e20 overflow, so the batch's variance is Inf and the normalised activation x / Inf is 0: the loss and
# every gradient are finite, and the moving variance is Inf for ever. Its origin is in the forward pass; what went bad
# is state, and either may be called its phase.
@origin(
    step=2,
    phase={"state", "forward"},
    layer="critic/norm",
    op={"SquaredDifference", "Square"},
    line="a batch of huge activations",
)
def batch_norm_statistics_beside_a_finite_loss(logdir):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(1, name="head")], name="critic"
    )
    model.build((None, 2))
    optimizer = keras.optimizers.Adam(1e-3)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(states):
        with tf.GradientTape() as tape:
            values = model(states, training=True)  # origin: a batch of huge activations
            loss = tf.reduce_mean(tf.square(values - 1.0))
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    with watch:
        for size in (1.0, 10.0, 1e20, 1.0):
            train_step(tf.random.normal((6, 2)) * size)
