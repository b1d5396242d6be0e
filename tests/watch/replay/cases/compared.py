"""NaN that passes through a comparison: the outcome is finite and wrong."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.watch.replay.case import FORWARD_OR_LOSS, origin
from tests.watch.replay.training import train

NAN = float("nan")


# The gradient of reduce_max counts the elements that equal the maximum: no NaN does, and 0 / 0 is NaN.
@origin(step=0, phase="state", layer="model", variable="model/scale", origins=1)
def untrained_variable_that_is_nan_before_a_maximum(logdir):
    scale = tf.Variable([1.0, NAN, 1.0], name="model/scale", trainable=False)

    def loss_of(weight, x):
        scaled = weight * scale * x
        return tf.reduce_mean(scaled) + tf.reduce_max(scaled)

    train(logdir, loss_of, [[1.0, 2.0, 3.0]], weight=[1.0, 1.0, 1.0])


@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log of a negative", origins=1)
def maximum_of_a_logarithm_that_is_nan(logdir):
    def loss_of(weight, x):
        logs = tf.math.log(weight * x)  # origin: log of a negative
        return tf.reduce_mean(logs) + tf.reduce_max(logs)

    train(logdir, loss_of, [[1.0, 2.0, 3.0], [1.0, -2.0, 3.0]], weight=[1.0, 1.0, 1.0])


# Not one of the scores is above 0, since all of them are NaN.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="scores that are all NaN")
def mean_over_the_positive_scores_where_all_are_nan(logdir):
    def loss_of(weight, x):
        scores = tf.math.log(weight * x)  # origin: scores that are all NaN
        positive = scores > 0
        return tf.reduce_sum(tf.where(positive, scores, 0.0)) / tf.reduce_sum(tf.cast(positive, tf.float32))

    train(logdir, loss_of, [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]], weight=[1.0, 1.0, 1.0])


@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="scores of a sample", samples=(2,))
def mean_over_the_positive_scores_of_a_sample_that_is_nan(logdir):
    def loss_of(weight, x):
        scores = tf.math.log(weight * x)  # origin: scores of a sample
        positive = scores > 0
        counts = tf.reduce_sum(tf.cast(positive, tf.float32), axis=1)
        return tf.reduce_mean(tf.reduce_sum(tf.where(positive, scores, 0.0), axis=1) / counts)

    good = np.full((4, 3), 2.0, "float32")
    bad = good.copy()
    bad[2] = -1.0
    train(logdir, loss_of, [good, bad], weight=[1.0, 1.0, 1.0])


# One label is missing and no other is positive. Nothing says whether the missing label would have been positive.
@origin(step=1, phase="loss", op="RealDiv", line="no label above 0")
def mean_over_positive_labels_of_which_one_is_missing(logdir):
    def loss_of(weight, labels):
        positive = tf.cast(labels > 0, tf.float32)
        return tf.reduce_sum(positive * weight) / tf.reduce_sum(positive)  # origin: no label above 0

    train(logdir, loss_of, [[1.0, NAN, -1.0], [-1.0, NAN, -1.0]], weight=[1.0, 1.0, 1.0])


# The program asks which labels are missing, and does not take them for numbers.
@origin(step=1, phase="loss", op="RealDiv", line="all labels are missing")
def mean_over_known_labels_where_all_are_missing(logdir):
    def loss_of(weight, labels):
        known = tf.math.is_finite(labels) & tf.equal(labels, labels)
        errors = tf.where(known, weight - tf.where(known, labels, 0.0), 0.0)
        return tf.reduce_sum(errors) / tf.reduce_sum(tf.cast(known, tf.float32))  # origin: all labels are missing

    train(logdir, loss_of, [[1.0, NAN, -1.0], [NAN, NAN, NAN]], weight=[1.0, 1.0, 1.0])
