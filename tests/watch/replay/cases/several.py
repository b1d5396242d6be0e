"""Steps with several non-finite values, of which only some matter."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


def reconstruction(x, decoded):
    return tf.reduce_mean(tf.exp(decoded) - x * decoded)  # origin: rate of a Poisson


def prior(code):
    return tf.reduce_mean(tf.math.log(code + 1.0))  # origin: log of a code of -1


# Two independent origins: each has its own chain.
@origin(
    step=1,
    phase=FORWARD_OR_LOSS,
    op={"Exp", "Log"},
    line="rate of a Poisson",
    also=("log of a code of -1",),
)
def two_origins_in_one_step(logdir):
    decoder = tf.Variable(1.0, name="decoder/rate")
    encoder = tf.Variable(1.0, name="encoder/code")
    variables = [encoder, decoder]
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, variables)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            code = encoder * x
            decoded = decoder * tf.abs(x) * 100.0
            loss = reconstruction(x, decoded) + 0.1 * prior(code)
        gradients = tape.gradient(loss, variables)
        watch.apply_gradients(optimizer, zip(gradients, variables), loss=loss)

    with watch:
        train_step(tf.constant([0.5, 0.2]))
        train_step(tf.constant([0.5, -1.0]))


# The -Inf of the mask reaches only a softmax. The root's gradient goes bad.
@origin(step=2, phase="backward", op="SqrtGrad", line="root beside a mask")
def mask_beside_a_bad_gradient(logdir):
    keras.utils.set_random_seed(1)
    kernel = tf.Variable(tf.eye(2), name="attention/kernel")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [kernel])

    def attend(x):
        scores = tf.where([[True, False], [True, True]], x @ kernel, -np.inf)
        return tf.nn.softmax(scores) @ x

    def magnitude(x):
        squares = tf.reduce_sum(tf.square(x), axis=1)
        return tf.sqrt(squares)  # origin: root beside a mask

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(magnitude(attend(x) @ kernel))
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        for first in (1.0, 0.5, 0.0):
            train_step(tf.constant([[first, 0.0], [2.0, 1.0]]))


# Missing labels are NaN and masked, which is right in this step too. The logarithm is the fault.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log beside missing labels")
def missing_labels_beside_a_log_of_zero(logdir):
    scale = tf.Variable(1.0, name="rate/scale")
    optimizer = keras.optimizers.Adam(1e-3)
    watch = Watch(logdir, [scale])

    @watch.step
    def train_step(x, y):
        known = ~tf.math.is_nan(y)
        labels = tf.where(known, y, 0.0)
        with tf.GradientTape() as tape:
            rate = tf.nn.relu(x * scale)
            logs = tf.math.log(rate)  # origin: log beside missing labels
            loss = tf.reduce_mean(tf.where(known, rate - labels * logs, 0.0))
        gradients = tape.gradient(loss, [scale])
        watch.apply_gradients(optimizer, zip(gradients, [scale]), loss=loss)

    with watch:
        train_step(tf.constant([1.0, 2.0, 3.0]), tf.constant([1.0, 2.0, 1.0]))
        train_step(tf.constant([1.0, -2.0, 3.0]), tf.constant([1.0, 2.0, np.nan]))


# With logits 80 and -80, the second class has probability exp(-160), which is 0. The gradient divides by it,
# too: a second origin on the same line, in a later phase.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log of a softmax")
def log_of_a_softmax_and_its_gradient(logdir):
    kernel = tf.Variable([[1.0, -1.0]], name="classifier/kernel")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [kernel])

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            log_probabilities = tf.math.log(tf.nn.softmax(x @ kernel))  # origin: log of a softmax
            loss = -tf.reduce_mean(tf.reduce_sum(y * log_probabilities, axis=1))
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        for size in (1.0, 80.0):
            train_step(tf.constant([[size]]), tf.constant([[0.0, 1.0]]))
