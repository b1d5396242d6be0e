"""Finite losses whose gradient is not."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import origin


def distance(a, b):
    return tf.reduce_sum((a - b) ** 2, axis=-1) ** 0.5  # origin: power of 0


# d(u ** 0.5) = 0.5 * u ** -0.5, and 0 ** -0.5 is Inf; times 2 * (a - b) = 0 it is NaN.
@origin(step=1, phase="backward", op="Pow", line="power of 0")
def gradient_of_a_power_at_zero(logdir):
    keras.utils.set_random_seed(1)
    points = tf.Variable(tf.random.normal((3, 2)), name="embedding/points")
    optimizer = keras.optimizers.Adam(0.1)
    watch = Watch(logdir, [points])

    @watch.step
    def train_step(left, right):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(distance(tf.gather(points, left), tf.gather(points, right)))
        gradients = tape.gradient(loss, [points])
        watch.apply_gradients(optimizer, zip(gradients, [points]), loss=loss)

    with watch:
        train_step(tf.constant([0, 1]), tf.constant([1, 2]))
        train_step(tf.constant([0, 1]), tf.constant([1, 1]))


# SqrtGrad(y = 0, dy) is dy * 0.5 / 0 = Inf for any dy that is not 0; times 2 * 0 it is NaN.
@origin(step=0, phase="backward", op="SqrtGrad", line="root of 0")
def gradient_of_a_norm_at_zero(logdir):
    weights = tf.Variable(tf.zeros(4), name="penalised/weights")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)

    def group_lasso(vector):
        return tf.norm(vector)  # origin: root of 0

    with Watch(logdir, [weights]) as watch:

        @watch.step
        def train_step(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((tf.linalg.matvec(x, weights) - y) ** 2) + 0.1 * group_lasso(weights)
            gradients = tape.gradient(loss, [weights])
            watch.apply_gradients(optimizer, zip(gradients, [weights]), loss=loss)

        train_step(tf.eye(4), tf.ones(4))


# The branch that is not chosen has gradient 0 * (1 / 0) = 0 * Inf. Its forward -Inf is thrown away, and is no origin.
@origin(step=0, phase="backward", op="Reciprocal", line="the branch that is not chosen")
def where_that_hides_a_log(logdir):
    scale = tf.Variable(1.0, name="entropy/scale")
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir)

    @watch.step
    def train_step(p):
        with tf.GradientTape() as tape:
            q = tf.nn.relu(p * scale)
            logs = tf.math.log(q)  # origin: the branch that is not chosen
            loss = -tf.reduce_sum(q * tf.where(q > 0, logs, 0.0))
        gradients = tape.gradient(loss, [scale])
        watch.apply_gradients(optimizer, zip(gradients, [scale]), loss=loss)

    with watch:
        train_step(tf.constant([0.5, 0.0, 0.5]))


# The row of word 0 is all zeros: d|v| ** 0.5 there is Inf * 0. The gradient has rows only of the words that were read.
@origin(step=1, phase="backward", op="Pow", line="length of an embedding row")
def nan_in_a_row_of_a_sparse_gradient(logdir):
    keras.utils.set_random_seed(7)
    words = keras.layers.Embedding(6, 3, name="words")
    words.build((None,))
    table = words.embeddings
    table.assign(tf.tensor_scatter_nd_update(table.value, [[0]], [[0.0, 0.0, 0.0]]))
    optimizer = keras.optimizers.Adagrad(0.1)
    watch = Watch(logdir, [table])

    def lengths(ids):
        rows = words(ids)
        return tf.reduce_sum(rows**2, axis=-1) ** 0.5  # origin: length of an embedding row

    @watch.step
    def train_step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((lengths(ids) - 1.0) ** 2)
        gradients = tape.gradient(loss, [table.value])
        watch.apply_gradients(optimizer, zip(gradients, [table]), loss=loss)

    with watch:
        train_step(tf.constant([1, 2, 3]))
        train_step(tf.constant([5, 0, 4]))


# One gradient is Inf, the global norm is Inf, and clipping by it makes every gradient NaN: the raw one was first.
@origin(step=0, phase="backward", layer="gate", op="Pow", line="power of a weight that is 0")
def one_inf_that_clipping_by_global_norm_spreads(logdir):
    kernel, gate = tf.Variable([[1.0], [2.0]], name="dense/kernel"), tf.Variable([4.0, 0.0], name="gate/strength")
    optimizer = keras.optimizers.Adam(0.01)
    watch = Watch(logdir, [kernel, gate])

    def gated(x):
        return x * tf.pow(gate, 0.5)  # origin: power of a weight that is 0

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(gated(x) @ kernel)
        raw = tape.gradient(loss, [kernel, gate])
        clipped, _ = tf.clip_by_global_norm(raw, 1.0)
        watch.apply_gradients(optimizer, zip(clipped, [kernel, gate]), raw=raw, loss=loss)

    with watch:
        train_step(tf.ones((3, 2)))
