"""Origins that lie close to other operations: in one statement, under similar scopes, on two paths from one mask."""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

from tests.watch.replay.case import FORWARD_OR_LOSS, origin
from tests.watch.replay.training import train

KNOWS_COLUMNS = sys.version_info >= (3, 11)
"""Whether Python knows which part of a line runs."""


# AutoGraph writes the whole statement on one line. A sigmoid of 50 is 1, and log(1 - 1) is -inf.
@origin(
    step=1,
    phase="loss",
    op="Log",
    line="second of two terms" if KNOWS_COLUMNS else None,
)
def second_of_two_terms_of_a_loss(logdir):
    def adversarial(weight, scores):
        believed = tf.sigmoid(weight * scores)
        return -tf.reduce_mean(
            0.5 * tf.math.log(believed[0])  # of what was drawn from the data
            + 0.5 * tf.math.log(1.0 - believed[1])  # origin: second of two terms
        )

    train(logdir, adversarial, [[1.0, -1.0], [1.0, 50.0]])


# The same expression stands there twice; only the second gets 0.
@origin(
    step=1,
    phase="loss",
    op="Log",
    line="same words on another line" if KNOWS_COLUMNS else None,
)
def same_words_on_two_lines(logdir):
    def loss_of(weight, x):
        parts = [
            [tf.math.log(part) for part in tf.unstack(weight * x[0])],
            [tf.math.log(part) for part in tf.unstack(weight * x[1])],  # origin: same words on another line
        ]
        return tf.reduce_sum(parts)

    train(logdir, loss_of, [[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [0.0, 4.0]]])


# With every state forbidden, the largest score is -inf on purpose, and -inf - -inf is NaN. The largest is added to the
# logarithm of that, so it also has a shorter path to the loss.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Sub", line="difference of two infinities")
def log_sum_exp_of_nothing(logdir):
    def partition(weight, allowed):
        scores = tf.where(allowed > 0, weight * allowed, -np.inf)
        largest = tf.reduce_max(scores)
        shifted = scores - largest  # origin: difference of two infinities
        return largest + tf.math.log(tf.reduce_sum(tf.exp(shifted)))

    train(logdir, partition, [[1.0, 0.0], [0.0, 0.0]])


@origin(step=1, phase="input", tensor="batch", samples=(1,), way="argument")
def nan_in_a_ragged_batch(logdir):
    batches = [tf.ragged.constant([[1.0, 2.0], [value]]) for value in (3.0, np.nan)]
    train(logdir, lambda weight, rows: tf.reduce_mean(tf.reduce_sum(rows * weight, axis=1)), batches)


@origin(step=1, phase="input", tensor="batch", samples=(1,))
def inf_in_a_sparse_batch(logdir):
    def loss_of(weight, x):
        return tf.reduce_mean(tf.sparse.sparse_dense_matmul(x, weight) ** 2)

    batches = [tf.SparseTensor([[0, 0], [1, 1]], [1.0, value], [2, 2]) for value in (2.0, np.inf)]
    train(logdir, loss_of, batches, weight=[[1.0], [1.0]])


# The scope belongs to the user, though tf.nn.batch_normalization and tf.math.log contain its words in their names.
@origin(step=1, phase=FORWARD_OR_LOSS, layer="norm", op="Rsqrt", line="variance of 0")
def scope_called_norm(logdir):
    def loss_of(weight, x):
        with tf.name_scope("norm"):
            mean, variance = tf.nn.moments(weight * x, [0])
            scaled = tf.nn.batch_normalization(x, mean, variance, 0.0, 1.0, 0.0)  # origin: variance of 0
        return tf.reduce_mean(scaled**2)

    train(logdir, loss_of, [[1.0, 2.0], [2.0, 2.0]])


@origin(step=1, phase=FORWARD_OR_LOSS, layer="actor/log_prob", op="Log", line="log in a scope of that name")
def scope_called_log_prob(logdir):
    def loss_of(weight, x):
        with tf.name_scope("actor"):
            chances = tf.nn.softmax(weight * x)
            with tf.name_scope("log_prob"):
                return -tf.reduce_sum(tf.math.log(chances))  # origin: log in a scope of that name

    train(logdir, loss_of, [[1.0, 2.0], [1.0, 200.0]])


# The loop has a scope of TensorFlow between the two scopes of the user.
@origin(step=1, phase=FORWARD_OR_LOSS, layer="ode/slope", op="Exp", line="slope that explodes")
def scopes_around_and_within_a_loop(logdir):
    def solve(weight, state):
        with tf.name_scope("ode"):
            for _ in tf.range(8):
                with tf.name_scope("slope"):
                    state = state + tf.exp(state)  # origin: slope that explodes
        return weight * state

    train(logdir, solve, [-10.0, 1.0])


# For a single row, tf.vectorized_map runs the user's function as it is.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log of the only row")
def vectorized_map_over_one_row(logdir):
    def log_length(row):
        return tf.math.log(tf.norm(row))  # origin: log of the only row

    def loss_of(weight, rows):
        return tf.reduce_sum(tf.vectorized_map(log_length, weight * rows))

    train(logdir, loss_of, [[[1.0, 2.0]], [[0.0, 0.0]]])


# It treats values that all rows share in the same way.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log that is the same for all rows")
def vectorized_map_of_what_is_the_same_for_all_rows(logdir):
    def loss_of(weight, rows):
        scale = tf.reduce_max(rows)

        def scaled(row):
            return row * tf.math.log(scale)  # origin: log that is the same for all rows

        return weight * tf.reduce_sum(tf.vectorized_map(scaled, rows))

    train(logdir, loss_of, [[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
