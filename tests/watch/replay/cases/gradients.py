"""Finite losses with non-finite gradients: functions with a corner, second derivatives, loops, half precision."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import origin
from tests.watch.replay.training import train


# The deviation of equal numbers is the root of 0, whose gradient is -2 / (2 * 0); times x - mean = 0 it is NaN.
@origin(step=1, phase="backward", op="SqrtGrad", line="deviation of equal numbers")
def deviation_of_equal_numbers(logdir):
    def spread(scale, x):
        return (tf.math.reduce_std(x * scale) - 1.0) ** 2  # origin: deviation of equal numbers

    train(logdir, spread, [[1.0, 2.0, 4.0], [2.0, 2.0, 2.0]], weight=1.0, name="affine/scale")


# d acos(c) = -1 / sqrt(1 - c * c), and c is 1 where a vector meets itself.
@origin(step=1, phase="backward", op="Reciprocal", line="angle between a vector and itself")
def angle_between_a_vector_and_itself(logdir):
    def angle(direction, x):
        cosine = tf.reduce_sum(direction * x)
        return tf.acos(cosine) ** 2  # origin: angle between a vector and itself

    train(logdir, angle, [[0.6, 0.8], [1.0, 0.0]], weight=[1.0, 0.0], name="rotation/direction")


# d atan2(y, x) = (x dy - y dx) / (x * x + y * y).
@origin(step=1, phase="backward", op="RealDiv", line="direction of the origin")
def direction_of_the_origin(logdir):
    def heading(scale, point):
        return tf.math.atan2(point[0] * scale, point[1] * scale)  # origin: direction of the origin

    train(logdir, heading, [[1.0, 1.0], [0.0, 0.0]], weight=1.0, name="compass/scale")


# (1 - p) ** 0.5 of the focal loss has an infinite slope at p = 1, and a sigmoid of 20 is 1.
@origin(step=1, phase="backward", op="Pow", line="focal weight of a certain sample")
def focal_loss_with_a_small_exponent(logdir):
    def focal(weights, x):
        p = tf.sigmoid(tf.reduce_sum(weights * x))
        modulation = (1.0 - p) ** 0.5  # origin: focal weight of a certain sample
        return -modulation * tf.math.log(p)

    train(logdir, focal, [[0.1, 0.2], [10.0, 10.0]], weight=[1.0, 1.0], name="detector/weights")


# The critic's slope does not depend on its input and is 0 here. The norm has no slope at 0.
@origin(step=0, phase="backward", op="SqrtGrad", line="norm of a gradient that is 0")
def gradient_penalty_of_a_flat_critic(logdir):
    keras.utils.set_random_seed(4)
    critic = keras.Sequential(
        [keras.layers.Dense(4, "relu", name="hidden"), keras.layers.Dense(1, name="score")], name="critic"
    )
    critic.build((None, 2))
    critic.layers[0].bias.assign(-10.0 * tf.ones(4))
    optimizer = keras.optimizers.Adam(1e-4)
    watch = Watch(logdir, critic.trainable_variables)

    def penalty(samples):
        with tf.GradientTape() as inner:
            inner.watch(samples)
            scores = critic(samples)
        slopes = inner.gradient(scores, samples)
        norms = tf.sqrt(tf.reduce_sum(slopes**2, axis=1))  # origin: norm of a gradient that is 0
        return tf.reduce_mean((norms - 1.0) ** 2)

    @watch.step
    def train_step(real, fake):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(critic(fake)) - tf.reduce_mean(critic(real)) + 10.0 * penalty(0.5 * (real + fake))
        gradients = tape.gradient(loss, critic.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, critic.trainable_variables), loss=loss)

    with watch:
        train_step(tf.ones((3, 2)), tf.zeros((3, 2)))


# The state stays between -1 and 1, and the loss is finite. Its gradient is multiplied by about 50 * cos in each round.
@origin(
    step=1,
    phase="backward",
    layer={None, "chaos"},
    op={"Mul", "AddN", "AddV2"},
    line="one turn of a bounded recurrence",
)
def gradient_that_explodes_through_time(logdir):
    gain = tf.Variable(50.0, name="chaos/gain")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.0)
    watch = Watch(logdir, [gain])

    @watch.step
    def train_step(state, length):
        with tf.GradientTape() as tape:
            for _ in tf.range(length):
                state = tf.sin(gain * state)  # origin: one turn of a bounded recurrence
            loss = tf.reduce_mean(state)
        gradients = tape.gradient(loss, [gain])
        watch.apply_gradients(optimizer, zip(gradients, [gain]), loss=loss)

    with watch:
        for length in (3, 100):
            train_step(tf.constant([0.1, 0.2, 0.3]), tf.constant(length))


# The loss is scaled up so that small gradients survive float16; this scale is too large, and the gradient of the cast
# is a cast itself, which overflows. The loss that is reported is the one before scaling.
@origin(step=1, phase="backward", op="Cast", line="cast whose gradient overflows")
def loss_scale_that_is_too_large(logdir):
    kernel = tf.Variable([[1.0], [0.5]], name="half/kernel")
    optimizer = keras.optimizers.SGD(1e-3)
    watch = Watch(logdir, [kernel])

    def predict(x):
        product = tf.matmul(tf.cast(x, tf.float16), tf.cast(kernel, tf.float16))
        return tf.cast(product, tf.float32)  # origin: cast whose gradient overflows

    @watch.step
    def train_step(x, y, scale):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(predict(x) - y))
            scaled = loss * scale
        gradients = [gradient / scale for gradient in tape.gradient(scaled, [kernel])]
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        for scale in (2.0**10, 2.0**20):
            train_step(tf.ones((4, 2)), tf.ones((4, 1)), tf.constant(scale))


# The program replaces the non-finite value, so the loss is finite. Its gradient is 0 * (-x / 0) / 0.
@origin(step=1, phase="backward", op="RealDiv", line="a ratio that is replaced afterwards")
def ratio_that_is_replaced_where_it_is_not_finite(logdir):
    def loss_of(scale, x):
        ratio = x[0] / (scale * x[1])  # origin: a ratio that is replaced afterwards
        return tf.reduce_sum(tf.where(tf.math.is_finite(ratio), ratio, 0.0))

    train(logdir, loss_of, [[[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [1.0, 0.0]]], weight=1.0, name="ratio/scale")
