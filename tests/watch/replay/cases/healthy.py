"""Healthy programs that hold NaN or Inf somewhere on the way to the loss."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay import training
from tests.watch.replay.case import healthy

train = partial(training.train, make_optimizer=lambda: keras.optimizers.Adam(1e-2))


@healthy
def causal_mask_of_minus_inf(logdir):
    keras.utils.set_random_seed(1)
    queries = keras.layers.Dense(4, name="queries")
    keys = keras.layers.Dense(4, name="keys")
    for layer in (queries, keys):
        layer.build((None, 5, 4))
    variables = queries.trainable_variables + keys.trainable_variables
    optimizer = keras.optimizers.Adam(1e-2)
    watch = Watch(logdir, variables)

    def attend(x):
        future = tf.linalg.band_part(tf.ones((5, 5)), -1, 0) == 0
        scores = tf.matmul(queries(x), keys(x), transpose_b=True)
        scores = tf.where(future, -np.inf, scores)
        return tf.matmul(tf.nn.softmax(scores), x)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(attend(x) - x))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        watch.apply_gradients(optimizer, zip(gradients, variables), loss=loss)

    with watch:
        for _ in range(4):
            train_step(tf.random.normal((2, 5, 4)))


@healthy
def constant_nan_that_nothing_uses(logdir):
    def loss_of(weight, x):
        missing = tf.constant([np.nan, np.inf])
        table = tf.concat([x, missing], axis=0) * 2.0
        return tf.reduce_sum(weight * table[:2])

    train(logdir, loss_of, [[1.0, -1.0]] * 3, weight=[1.0, 2.0])


# Added to the scores, the mask is -Inf for padding; each row has a word left.
@healthy
def padding_mask_that_is_added(logdir):
    def loss_of(scores, mask):
        weights = tf.nn.softmax(scores + tf.math.log(mask))
        return tf.reduce_sum(weights * [1.0, 2.0, 3.0])

    train(logdir, loss_of, [[[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]] * 3, weight=[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])


# log_softmax of a masked logit is -Inf, and multiply_no_nan makes 0 of 0 * -Inf.
@healthy
def cross_entropy_of_masked_classes(logdir):
    def loss_of(logits, labels):
        allowed = tf.constant([True, True, False])
        log_probabilities = tf.nn.log_softmax(tf.where(allowed, logits, -np.inf))
        return -tf.reduce_sum(tf.where(labels > 0, labels * log_probabilities, 0.0))

    train(logdir, loss_of, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], weight=[0.1, 0.2, 0.3])


# Double Q-learning takes the best of the legal actions: the others are -Inf.
@healthy
def maximum_over_padding_of_minus_inf(logdir):
    def loss_of(values, legal):
        best = tf.reduce_max(tf.where(legal, values, -np.inf), axis=1)
        return tf.reduce_mean(tf.square(best - 1.0))

    legal = [[True, False, True], [False, True, False]]
    train(logdir, loss_of, [legal] * 3, weight=[[0.1, 9.0, 0.3], [8.0, 0.2, 7.0]])


@healthy
def where_with_a_safe_argument(logdir):
    def loss_of(weight, x):
        positive = x > 0
        safe = tf.where(positive, x, 1.0)
        return tf.reduce_sum(weight * tf.where(positive, tf.math.log(safe) + safe**0.5, 0.0))

    train(logdir, loss_of, [[1.0, 0.0, -2.0]] * 3, weight=2.0)


# The gradient of the root at 0 is 0 where the upstream gradient is 0.
@healthy
def where_around_a_root_of_zero(logdir):
    def loss_of(weight, x):
        scaled = tf.nn.relu(weight * x)
        return tf.reduce_sum(tf.where(x > 0, tf.sqrt(scaled), 0.0))

    train(logdir, loss_of, [[1.0, 0.0, -2.0]] * 3, weight=2.0)


@healthy
def labels_that_are_missing(logdir):
    def loss_of(weight, rows):
        x, y = rows[:, 0], rows[:, 1]
        known = tf.math.is_finite(y)
        errors = weight * x - tf.where(known, y, 0.0)
        return tf.math.divide_no_nan(
            tf.reduce_sum(tf.where(known, errors**2, 0.0)), tf.reduce_sum(tf.cast(known, "float32"))
        )

    rows = [[1.0, 2.0], [2.0, np.nan], [3.0, -np.inf]]
    train(logdir, loss_of, [rows, [[1.0, np.nan]] * 3, rows], weight=1.0)


@healthy
def features_that_are_imputed(logdir):
    def loss_of(weight, x):
        return tf.reduce_sum((weight * tf.where(tf.math.is_nan(x), tf.zeros_like(x), x) - 1.0) ** 2)

    train(logdir, loss_of, [[1.0, np.nan], [np.nan, np.nan], [2.0, 1.0]], weight=[0.5, 0.5])


# A ratio to a baseline of 0, shown and not trained on.
@healthy
def metric_that_is_inf(logdir):
    keras.utils.set_random_seed(1)
    weight, metric = tf.Variable([1.0, 2.0], name="line/weight"), keras.metrics.Mean(name="ratio")
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x, baseline):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((weight * x - 1.0) ** 2)
        metric.update_state(loss / baseline)
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)
        return {"loss": loss, "ratio": metric.result()}

    with watch:
        for baseline in (1.0, 0.0, 1.0):
            answer = train_step(tf.constant([1.0, 2.0]), tf.constant(baseline))
    assert np.isinf(answer["ratio"])


# Before the first loss, the best is Inf. Before the first value, the least is Inf and the largest -Inf.
@healthy
def records_that_begin_at_inf(logdir):
    weight = tf.Variable([1.0, 2.0], name="line/weight")
    best = tf.Variable(np.inf, trainable=False, name="best_loss", dtype=tf.float32)
    bounds = tf.Variable([np.inf, -np.inf], trainable=False, name="bounds_of_what_never_came", dtype=tf.float32)
    optimizer = keras.optimizers.SGD(0.01)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((weight * x - 1.0) ** 2)
        gradients = tape.gradient(loss, [weight])
        rare = tf.boolean_mask(x, x > 100.0)
        bounds.assign([tf.minimum(bounds[0], tf.reduce_min(rare)), tf.maximum(bounds[1], tf.reduce_max(rare))])
        best.assign(tf.minimum(best, loss))
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for _ in range(3):
            train_step(tf.constant([1.0, 2.0]))


# The second argument is there for a callback, and nothing in the step reads it.
@healthy
def argument_that_nothing_reads(logdir):
    weight = tf.Variable([1.0, 2.0], name="line/weight")
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x, statistics):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((weight * x - 1.0) ** 2)
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)
        return loss, statistics

    with watch:
        for _ in range(3):
            train_step(tf.constant([1.0, 2.0]), tf.constant([np.nan, np.inf]))


# Without a gradient, a program may replace a ratio after it computed it.
@healthy
def ratio_without_a_gradient_that_is_replaced(logdir):
    def loss_of(weight, x):
        ratio = x[0] / x[1]
        return tf.reduce_sum(weight * tf.where(tf.math.is_finite(ratio), ratio, 0.0))

    train(logdir, loss_of, [[[1.0, 2.0], [1.0, 0.0]]] * 3, weight=[1.0, 2.0])


@healthy
def branch_that_is_not_taken(logdir):
    def loss_of(weight, x):
        bonus = tf.reduce_sum(tf.math.log(x)) if tf.reduce_all(x > 0) else tf.constant(0.0)
        return tf.reduce_sum(weight * x) + bonus

    train(logdir, loss_of, [[1.0, 2.0], [1.0, 0.0], [1.0, -1.0]], weight=[1.0, 2.0])


# Rejection sampling: a rejected sample has the score -Inf, and the largest score wins. XLA drops NaN in a maximum.
@healthy
def choice_among_rejected_that_xla_compiles(logdir):
    weight = tf.Variable([1.0, 2.0, 3.0], name="actor/weight")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)
    watch = Watch(logdir, [weight])

    @watch.step(jit_compile=True)
    def train_step(x):
        scores = tf.where(x > 0, x, -np.inf)
        with tf.GradientTape() as tape:
            chosen = tf.gather(weight * x, tf.argmax(scores))
            loss = tf.square(chosen - 1.0) + tf.reduce_logsumexp(scores)
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for _ in range(3):
            train_step(tf.constant([1.0, 2.0, -1.0]))
