"""Samples are named of rows that come from the batch; a weight with as many rows as the batch has none."""

import numpy as np
import pytest
import tensorflow as tf

import tb_nanwatch

WEIGHT = np.array([[1.0, 2.0], [1.0, 1.0], [0.0, 0.0], [1.0, 2.0]], "float32")
BATCH = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 1.0, 1.0], [1.0, 1.0, 3.0, 1.0]], "float32")


def first_of(logdir, loss_of, clip=None):
    """Return what went bad first in a step on four samples, whose weight has four rows; row 2 of it is 0."""
    weight = tf.Variable(WEIGHT, name="weight")
    watch = tb_nanwatch.Watch(logdir, [weight])
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.0)

    @watch.step
    def step(x):
        with tf.GradientTape() as tape:
            loss = loss_of(weight, x)
        raw = tape.gradient(loss, [weight])
        clipped = raw if clip is None else [clip(gradient) for gradient in raw]
        watch.apply_gradients(optimizer, zip(clipped, [weight], strict=True), raw=raw, loss=loss)

    with pytest.raises(tb_nanwatch.NonFiniteError) as caught:
        step(tf.constant(BATCH))
    return caught.value.verdict.first


def normalised(weight, x):
    return tf.reduce_mean(tf.square(x @ (weight / tf.norm(weight, axis=1, keepdims=True))))


def decayed(weight, x):
    return tf.reduce_mean(x @ weight) + tf.reduce_sum(tf.sqrt(tf.reduce_sum(tf.square(weight), axis=1)))


def by_time(weight, x):
    steps_first = tf.transpose(tf.stack([x, x, x, x], axis=1), [1, 0, 2])
    return tf.reduce_mean(tf.math.log(tf.reduce_sum(steps_first @ weight, axis=2)))


@pytest.mark.parametrize(("loss_of", "op"), [(normalised, "RealDiv"), (decayed, "SqrtGrad"), (by_time, "Log")])
def test_rows_of_a_weight_or_of_time_are_no_samples(tmp_path, loss_of, op):
    first = first_of(str(tmp_path), loss_of)
    assert (first.op.type, first.samples) == (op, ())


def test_rows_of_a_clipped_gradient_are_no_samples(tmp_path):
    first = first_of(
        str(tmp_path),
        lambda weight, x: tf.reduce_mean((x * [1.0, 1.0, 0.0, 1.0]) @ weight),
        clip=lambda gradient: gradient / tf.norm(gradient, axis=1, keepdims=True),
    )
    assert (first.phase, first.op.type, first.samples) == ("clip", "RealDiv", ())


@pytest.mark.parametrize(
    ("loss_of", "op"),
    [
        (lambda weight, x: tf.reduce_mean(tf.math.log(tf.reduce_sum(x @ weight, axis=1))), "Log"),
        (lambda weight, x: tf.reduce_mean(tf.sqrt(tf.reduce_sum(x @ weight, axis=1))), "SqrtGrad"),
    ],
)
def test_rows_of_the_batch_are_its_samples(tmp_path, loss_of, op):
    first = first_of(str(tmp_path), loss_of)
    assert (first.op.type, first.samples) == (op, (1,))
