"""Finite gradients that clipping makes non-finite, and an update that is too large."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import origin


# The squares of 1e25 overflow, so the norm is Inf, and tf.clip_by_global_norm returns NaN for it. The norm reaches the
# gradients through a condition only; a constant NaN of TensorFlow flows into them.
@origin(
    step=1,
    phase="clip",
    layer={None, "linear"},
    op={"L2Loss", "SelectV2", "Const"},
    line="global norm of huge gradients",
)
def global_norm_that_overflows(logdir):
    kernel, bias = tf.Variable([1.0, 1.0], name="linear/kernel"), tf.Variable(0.0, name="linear/bias")
    variables, optimizer = [kernel, bias], keras.optimizers.SGD(1e-3)
    watch = Watch(logdir, variables)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(kernel * x) + bias
        raw = tape.gradient(loss, variables)
        clipped, _ = tf.clip_by_global_norm(raw, 5.0)  # origin: global norm of huge gradients
        watch.apply_gradients(optimizer, zip(clipped, variables), raw=raw, loss=loss)

    with watch:
        for size in (1.0, 1e25):
            train_step(tf.constant([1.0, -1.0]) * size)


def normalised(gradients):
    return [gradient / tf.norm(gradient) for gradient in gradients]  # origin: gradient of norm 0


# A unit that is off has gradient 0, and 0 / 0 is NaN: normalising is clipping too.
@origin(step=1, phase="clip", layer={None, "relu"}, op="RealDiv", line="gradient of norm 0")
def normalised_gradient_of_a_dead_unit(logdir):
    kernel = tf.Variable([1.0, 1.0], name="relu/kernel")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [kernel])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.nn.relu(tf.reduce_sum(kernel * x))
        raw = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(normalised(raw), [kernel]), raw=raw, loss=loss)

    with watch:
        for x in ([1.0, 2.0], [-1.0, -2.0]):
            train_step(tf.constant(x))


# A learning rate of 1e10 times a gradient of 1e30 is Inf.
@origin(step=1, phase="update", layer="linear", op="Mul", line="step that is too large", variable="linear/kernel")
def descent_step_that_overflows(logdir):
    kernel = tf.Variable([0.5, 0.5], name="linear/kernel")
    optimizer = keras.optimizers.SGD(learning_rate=1e10)
    watch = Watch(logdir, [kernel])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = 1e-9 * tf.reduce_sum(kernel * x)
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)  # origin: step that is too large

    with watch:
        for size in (1e-10, 1e38):
            train_step(tf.constant([1.0, -1.0]) * size)
