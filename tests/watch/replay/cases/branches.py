"""Origins in branches, loops and functions within the step's own."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


@origin(step=2, phase=FORWARD_OR_LOSS, op="Log", line="log in a branch")
def log_in_a_branch_of_cond(logdir):
    factor = tf.Variable(1.0, name="scale/factor")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [factor])

    def logarithmic(x):
        return lambda: tf.reduce_sum(tf.math.log(x * factor))  # origin: log in a branch

    def linear(x):
        return lambda: tf.reduce_sum(x * factor)

    @watch.step
    def train_step(x, use_log):
        with tf.GradientTape() as tape:
            loss = tf.cond(use_log, logarithmic(x), linear(x))
        gradients = tape.gradient(loss, [factor])
        watch.apply_gradients(optimizer, zip(gradients, [factor]), loss=loss)

    with watch:
        train_step(tf.constant([0.0, 1.0]), tf.constant(False))
        train_step(tf.constant([0.5, 1.0]), tf.constant(True))
        train_step(tf.constant([0.0, 1.0]), tf.constant(True))


# AutoGraph turns the if into tf.cond. The line is still the user's.
@origin(step=1, phase=FORWARD_OR_LOSS, op="RealDiv", line="division in an if")
def division_in_an_if_statement(logdir):
    weight = tf.Variable([1.0, 1.0], name="ratio/weight")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(weight * x)
            if tf.reduce_max(x) > 1.0:
                spread = tf.reduce_max(x) - tf.reduce_min(x)
                loss = total / spread  # origin: division in an if
            else:
                loss = total
            loss = 2.0 * loss
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for pair in ([2.0, 1.0], [3.0, 3.0]):
            train_step(tf.constant(pair))


@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log of one sequence")
def log_in_map_fn_in_cond(logdir):
    bias = tf.Variable(0.0, name="prior/bias")
    optimizer = keras.optimizers.Adam()
    watch = Watch(logdir, [bias])

    def surprise(sequence):
        return -tf.reduce_sum(tf.math.log(sequence))  # origin: log of one sequence

    def every_surprise(sequences):
        return tf.map_fn(surprise, sequences)

    @watch.step
    def train_step(sequences):
        with tf.GradientTape() as tape:
            shifted = sequences + bias
            several = tf.shape(sequences)[0] > 1
            surprises = tf.cond(several, lambda: every_surprise(shifted), lambda: -tf.reduce_sum(shifted, axis=1))
            loss = tf.reduce_mean(surprises)
        gradients = tape.gradient(loss, [bias])
        watch.apply_gradients(optimizer, zip(gradients, [bias]), loss=loss)

    with watch:
        train_step(tf.constant([[0.0, 0.0]]))
        train_step(tf.constant([[0.5, 0.5], [0.25, 0.75], [-1.0, 1.0]]))


@tf.function
def hinge(scores):
    return tf.reduce_mean(tf.sqrt(scores - 1.0))  # origin: root of a negative


@tf.function
def total_loss(scores, weights):
    return hinge(scores) + 1e-3 * tf.nn.l2_loss(weights)


# The step calls total_loss, which calls hinge: three nested graphs.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Sqrt", line="root of a negative")
def root_in_a_nested_tf_function(logdir):
    weights = tf.Variable([1.0, 1.0], name="linear/weights")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weights])

    @watch.step
    @tf.function
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = total_loss(tf.linalg.matvec(x, weights), weights)
        gradients = tape.gradient(loss, [weights])
        watch.apply_gradients(optimizer, zip(gradients, [weights]), loss=loss)

    with watch:
        train_step(tf.constant([[1.0, 1.0], [2.0, 2.0]]))
        train_step(tf.constant([[0.1, 0.2], [2.0, 2.0]]))


# The forward pass is run again in the backward pass, and only the gradient of that second run goes bad.
@origin(step=1, phase="backward", layer={None, "block"}, op="Pow", line="power in a block that is run twice")
def power_in_recompute_grad(logdir):
    kernel = tf.Variable([[1.0, 0.5], [0.5, 1.0]], name="block/kernel")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [kernel])

    def block(x):
        return tf.nn.relu(tf.matmul(x, kernel)) ** 0.3  # origin: power in a block that is run twice

    cheap = tf.recompute_grad(block)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(cheap(x))
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        train_step(tf.constant([[1.0, 1.0]]))
        train_step(tf.constant([[-1.0, 1.0]]))


@tf.custom_gradient
def length(vectors):
    lengths = tf.norm(vectors, axis=-1)

    def grad(upstream):
        return upstream[..., None] * vectors / lengths[..., None]  # origin: 0 / 0 in a gradient of one's own

    return lengths, grad


# The gradient is the user's own code, so the line is in it and not in the forward pass.
@origin(step=1, phase="backward", op="RealDiv", line="0 / 0 in a gradient of one's own")
def custom_gradient_that_divides_by_zero(logdir):
    points = tf.Variable([[3.0, 4.0], [0.0, 2.0]], name="cloud/points")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.0)
    watch = Watch(logdir, [points])

    @watch.step
    def train_step(origin_point):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(length(points - origin_point))
        gradients = tape.gradient(loss, [points])
        watch.apply_gradients(optimizer, zip(gradients, [points]), loss=loss)

    with watch:
        train_step(tf.constant([1.0, 1.0]))
        train_step(tf.constant([0.0, 2.0]))


# Nothing reports inside a step that XLA compiled. Run without XLA, the step has the same origin.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log1p", line="log1p of -1")
def step_that_xla_compiles(logdir):
    weight = tf.Variable([0.5, 0.25], name="returns/weight")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.0)
    watch = Watch(logdir, [weight])

    @watch.step(jit_compile=True)
    def train_step(change):
        with tf.GradientTape() as tape:
            growth = tf.math.log1p(change)  # origin: log1p of -1
            loss = tf.reduce_sum(weight * growth)
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        train_step(tf.constant([0.1, -0.5]))
        train_step(tf.constant([0.1, -1.0]))
