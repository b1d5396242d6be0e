"""Values that an operation hides from the loss, and that still reach a gradient."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import origin


class Whiten(keras.layers.Layer):
    """Divides each pixel by the standard deviation of the two by two patch that begins at it."""

    def call(self, pictures):
        mean = tf.nn.avg_pool2d(pictures, 2, 1, "VALID")
        variance = tf.nn.avg_pool2d(tf.square(pictures), 2, 1, "VALID") - tf.square(mean)
        return (pictures[:, :-1, :-1] - mean) / tf.sqrt(variance)  # origin: 0 / 0 in a flat patch


# From a window with a NaN and a number, max pooling takes the number. But the kernel's gradient is a product with the
# NaN, and NaN * 0 is NaN. The value arose in the forward pass, though the first bad record is a gradient.
@origin(step=1, phase="forward", layer="finder/whiten", op="RealDiv", line="0 / 0 in a flat patch", samples=(2,))
def nan_that_max_pooling_swallows(logdir):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            Whiten(name="whiten"),
            keras.layers.Conv2D(3, 1, use_bias=False, name="features"),
            keras.layers.MaxPooling2D(4, name="pool"),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="head"),
        ],
        name="finder",
    )
    model.build((None, 5, 5, 1))
    optimizer = keras.optimizers.SGD(0.01)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(pictures):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(pictures)))
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    batches = np.random.default_rng(8).integers(-8, 8, size=(2, 4, 5, 5, 1)).astype("float32")
    batches += np.arange(5)[:, None] * 16
    batches[1, 2, 1:3, 1:3] = 2.0
    with watch:
        for batch in batches:
            train_step(tf.constant(batch))


# 1 / Inf is 0: the loss is finite, and its derivative, 0 * Inf, is not.
@origin(step=1, phase="forward", op="Exp", line="exp in a divisor", samples=(1,))
def infinity_that_a_division_hides(logdir):
    weight, optimizer = tf.Variable(1.0, name="model/weight"), keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            powers = tf.exp(weight * x)  # origin: exp in a divisor
            loss = tf.reduce_mean(1.0 / powers)
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    with watch:
        train_step(tf.constant([1.0, 2.0]))
        train_step(tf.constant([1.0, 90.0]))


def standardise(rows):
    centred = rows - tf.reduce_mean(rows, axis=1, keepdims=True)
    return centred / tf.math.reduce_std(rows, axis=1, keepdims=True)  # origin: 0 / 0 in a row of one value


# MatMul, BiasAdd and Relu become one operation that maps NaN to 0, so the loss is finite; the kernel's gradient is a
# product with the NaN of the row. Without that fusion the same NaN reaches the loss, and the origin is the same.
@origin(step=2, phase="forward", op="RealDiv", line="0 / 0 in a row of one value", samples=(4,))
def nan_that_a_fused_relu_erases(logdir):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.layers.Dense(5, "relu", name="hidden"), keras.layers.Dense(1, name="head")], name="scorer"
    )
    model.build((None, 4))
    optimizer = keras.optimizers.SGD(0.01)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(standardise(x)))
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    rows = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
    rows[2, 4] = 1.5
    with watch:
        for batch in rows:
            train_step(tf.constant(batch))
