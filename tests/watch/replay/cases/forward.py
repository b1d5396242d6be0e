"""Values that go bad on the way to the loss."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


def binary_cross_entropy(labels, probabilities):
    hit = tf.math.log(probabilities)
    miss = tf.math.log(1.0 - probabilities)  # origin: log of 0
    return -tf.reduce_mean(labels * hit + (1.0 - labels) * miss)


# The sigmoid of 60 is 1 in float32; then 1 - p is 0, and (1 - y) * log(1 - p) is 0 * -Inf.
@origin(step=2, phase=FORWARD_OR_LOSS, op="Log", line="log of 0")
def log_of_zero_in_a_cross_entropy(logdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(1, "sigmoid", kernel_initializer="ones", name="spam")], name="filter")
    model.build((None, 3))
    optimizer = keras.optimizers.SGD(0.01)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = binary_cross_entropy(y, model(x))
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), raw=gradients, loss=loss)

    y = tf.constant([[1.0], [0.0]])
    with watch:
        for size in (0.1, 1.0, 20.0):
            train_step(tf.constant([[1.0, 1.0, 1.0], [-1.0, 0.0, 0.5]]) * size, y)


def softmax(logits):
    powers = tf.exp(logits)  # origin: exp of a large logit
    return powers / tf.reduce_sum(powers, axis=-1, keepdims=True)


# exp(90) is 1.2e39, more than float32 holds; Inf / Inf is NaN.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Exp", line="exp of a large logit")
def softmax_by_hand(logdir):
    kernel = tf.Variable(tf.eye(3), name="classifier/kernel")
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, [kernel])

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(softmax(tf.matmul(x, kernel)) - y))
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        for size in (1.0, 90.0, 1.0):
            train_step(tf.constant([[0.5, 0.2, 0.1], [1.0, 0.0, 0.0]]) * size, tf.eye(3)[:2])


# The mask of the last batch is empty: 0 / 0. The quotient is the loss itself.
@origin(step=3, phase="loss", op="RealDiv", line="mean over an empty mask")
def masked_mean_of_nothing(logdir):
    keras.utils.set_random_seed(2)
    embedding = tf.Variable(tf.random.normal((7, 4)), name="tokens/table")
    kernel = tf.Variable(tf.random.normal((4, 7)), name="decoder/kernel")
    optimizer = keras.optimizers.Adam(0.01)
    watch = Watch(logdir)

    def masked_loss(tokens):
        mask = tf.cast(tokens[:, 1:] != 0, tf.float32)
        logits = tf.gather(embedding, tokens[:, :-1]) @ kernel
        errors = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens[:, 1:], logits)
        return tf.reduce_sum(errors * mask) / tf.reduce_sum(mask)  # origin: mean over an empty mask

    @watch.step
    def train_step(tokens):
        with tf.GradientTape() as tape:
            loss = masked_loss(tokens)
        variables = [embedding, kernel]
        gradients = tape.gradient(loss, variables)
        watch.apply_gradients(optimizer, zip(gradients, variables), loss=loss)

    with watch:
        for length in (3, 2, 1, 0):
            train_step(tf.constant([[1, 2, 3, 4][: length + 1] + [0] * (3 - length)]))


class Cosine(tf.Module):
    """Scores queries against a learnt direction."""

    def __init__(self):
        super().__init__(name="cosine")
        with self.name_scope:
            self.direction = tf.Variable([1.0, 2.0, 2.0], name="direction")

    def unit(self, vectors):
        lengths = tf.norm(vectors, axis=-1, keepdims=True)
        return vectors / lengths  # origin: a vector of length 0

    def scores(self, queries):
        return tf.linalg.matvec(self.unit(queries), self.direction)


@origin(step=1, phase=FORWARD_OR_LOSS, op="RealDiv", line="a vector of length 0")
def norm_of_a_zero_vector(logdir):
    model, optimizer = Cosine(), keras.optimizers.SGD(0.1)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(queries, target):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model.scores(queries) - target) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    queries = np.ones((3, 3), "float32")
    with watch:
        train_step(tf.constant(queries), 1.0)
        queries[1] = 0
        train_step(tf.constant(queries), 1.0)


# 300 * 300 is 90,000, and float16 ends at 65,504.
@origin(step=1, phase="forward", layer="half", op="MatMul", line="product of halves")
def float16_overflow_in_a_matmul(logdir):
    kernel = tf.Variable(tf.fill((2, 3), tf.constant(300.0, tf.float16)), name="half/kernel")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(1e-4)
    watch = Watch(logdir, [kernel])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            hidden = tf.matmul(x, kernel)  # origin: product of halves
            loss = tf.reduce_mean(tf.abs(tf.cast(hidden, tf.float32) - 100.0))
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        for size in (1.0, 300.0):
            train_step(tf.constant([[size, -1.0], [1.0, 1.0]], tf.float16))
