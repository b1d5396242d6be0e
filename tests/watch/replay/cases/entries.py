"""Values that enter a step otherwise than as an argument: captured tensors, and constants made from data."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, Watch
from tests.watch.replay.case import healthy, origin

NAN = float("nan")


def train(logdir, loss_of, batches):
    """Train one variable by a loss of it and the arguments of a batch."""
    variable = tf.Variable(1.0, name="model/weight")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [variable])

    @watch.step
    def train_step(*batch):
        with tf.GradientTape() as tape:
            loss = loss_of(variable, *batch)
        gradients = tape.gradient(loss, [variable])
        watch.apply_gradients(optimizer, zip(gradients, [variable]), loss=loss)

    with watch:
        for batch in batches:
            train_step(*batch)


def rows_with_a_missing_value():
    """64 rows of three features; one value is missing."""
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    rows[5, 1] = NAN
    return rows


def model_adapted_to(rows):
    keras.utils.set_random_seed(4)
    layer = keras.layers.Normalization(name="scale")
    layer.adapt(rows)
    model = keras.Sequential([keras.Input([3]), layer, keras.layers.Dense(1, name="head")], name="model")
    return model, np.nan_to_num(rows), np.nan_to_num(rows[:, :1])


# The statistics are bad, the batch is not.
@origin(
    step=0,
    phase="input",
    layer="model/scale",
    line="the model is called",
    tensor="scale/mean",
    way="captured",
)
def normalization_adapted_to_a_missing_value(logdir):
    model, x, y = model_adapted_to(rows_with_a_missing_value())
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)  # origin: the model is called
        gradients = tape.gradient(loss, model.trainable_variables)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    with watch:
        train_step(tf.constant(x[:16]), tf.constant(y[:16]))


@origin(step=0, phase="input", layer="model/scale", line="fit", tensor="scale/mean", way="captured")
def normalization_adapted_to_a_missing_value_in_fit(logdir):
    model, x, y = model_adapted_to(rows_with_a_missing_value())
    model.compile("sgd", "mse")
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[NanWatchCallback(logdir)])  # origin: fit


@origin(step=1, phase="input", line="a batch as a constant", tensor="pictures[number]", way="constant")
def batch_that_the_step_makes_a_constant_of(logdir):
    pictures = np.ones((3, 8, 5), "float32")
    pictures[1, 3, 2] = NAN

    def loss_of(weight, number):
        x = tf.constant(pictures[number])  # origin: a batch as a constant
        return tf.reduce_mean((x * weight) ** 2)

    train(logdir, loss_of, [(0,), (1,)])


@origin(step=0, phase="input", line="weights of classes", tensor="class_weights", way="constant")
def nan_in_class_weights_that_multiply_a_loss(logdir):
    class_weights = np.array([1.0, NAN, 2.0], "float32")

    def loss_of(weight, x):
        errors = tf.reduce_mean((x * weight) ** 2, axis=0)
        return tf.reduce_sum(errors * class_weights)  # origin: weights of classes

    train(logdir, loss_of, [(tf.ones([8, 3]),)])


# A branch is a graph of its own.
@origin(step=1, phase="input", line="weights in a branch", tensor="class_weights", way="constant")
def nan_in_class_weights_that_a_branch_multiplies_by(logdir):
    class_weights = np.array([1.0, NAN, 2.0], "float32")

    def loss_of(weight, x):
        if tf.reduce_sum(x) > 0:
            x = x * class_weights  # origin: weights in a branch
        return tf.reduce_mean(x * weight)

    train(logdir, loss_of, [(-tf.ones([8, 3]),), (tf.ones([8, 3]),)])


# The leading dimension of these weights is the batch's.
@origin(
    step=0,
    phase="input",
    layer="mean_squared_error",
    line="weights of samples",
    tensor="sample_weights",
    samples=(6,),
    way="constant",
)
def nan_in_sample_weights_that_are_no_argument(logdir):
    sample_weights = np.ones(8, "float32")
    sample_weights[6] = NAN
    mse = keras.losses.MeanSquaredError()

    def loss_of(weight, x, y):
        return mse(y, x * weight, sample_weight=sample_weights)  # origin: weights of samples

    train(logdir, loss_of, [(tf.ones([8, 3]), tf.zeros([8, 3]))])


@origin(step=0, phase="input", line="scale of a loss", tensor="scale", way="constant")
def number_that_is_nan(logdir):
    scale = NAN

    def loss_of(weight, x):
        return tf.reduce_mean(x * weight) * scale  # origin: scale of a loss

    train(logdir, loss_of, [(tf.ones([8, 3]),)])


@origin(step=1, phase="input", tensor="batch[1]", way="argument")
def number_among_the_arguments_that_is_nan(logdir):
    def loss_of(weight, x, scale):
        return tf.reduce_mean(x * weight) * scale

    train(logdir, loss_of, [(tf.ones([8, 3]), 1.0), (tf.ones([8, 3]), NAN)])


# 400 elements are captured as a tensor, a few as a constant. The rows of the matrix are no samples, though as many.
@origin(step=0, phase="input", line="a whitening matrix", tensor="self.whiten", samples=(), way="captured")
def attribute_of_a_module_that_holds_nan(logdir):
    class Whitened(tf.Module):
        def __init__(self):
            super().__init__()
            matrix = np.eye(20, dtype="float32")
            matrix[3, 4] = NAN
            self.whiten = tf.constant(matrix)

        def __call__(self, x):
            return x @ self.whiten  # origin: a whitening matrix

    module = Whitened()
    train(logdir, lambda weight, x: tf.reduce_mean(module(x) * weight), [(tf.ones([20, 20]),)])


@origin(step=1, phase="input", line="vectors of words", tensor="vectors", samples=(), way="constant")
def embedding_matrix_that_is_a_constant(logdir):
    vectors = np.zeros((30, 4), "float32")
    vectors[7, 2] = NAN

    def loss_of(weight, words):
        embedded = tf.nn.embedding_lookup(vectors, words)  # origin: vectors of words
        return tf.reduce_mean(embedded * weight)

    train(logdir, loss_of, [(tf.constant([[1, 2], [3, 4]]),), (tf.constant([[1, 2], [7, 4]]),)])


# The mask leaves two samples of 16: a bad sample and a finite one.
@origin(step=0, phase="input", tensor="batch[0]", samples=(11,), way="argument")
def argument_that_is_mostly_masked(logdir):
    x, mask = np.full((16, 3), NAN, "float32"), np.zeros((16, 1), "float32")
    x[2], mask[[2, 11]] = 1.0, 1.0

    def loss_of(weight, x, mask):
        return tf.reduce_mean((tf.where(mask > 0, x, 0.0) * weight) ** 2)

    train(logdir, loss_of, [(tf.constant(x), tf.constant(mask))])


# Each term has a mask of its own, and each lets another sample through.
@origin(step=0, phase="input", tensor="batch[0]", samples=(3, 11), way="argument")
def argument_that_is_masked_in_two_ways(logdir):
    x, first, second = np.full(16, NAN, "float32"), np.zeros(16, "float32"), np.zeros(16, "float32")
    first[11], second[3] = 1.0, 1.0

    def loss_of(weight, x, first, second):
        terms = [tf.reduce_mean(tf.where(mask > 0, x, 0.0) * weight) for mask in (first, second)]
        return terms[0] + terms[1]

    train(logdir, loss_of, [tuple(map(tf.constant, (x, first, second)))])


@origin(step=0, phase="input", tensor="batch[0]", samples=(3,), way="argument")
def value_of_a_sparse_argument_in_row_three(logdir):
    x = tf.SparseTensor([[0, 0], [0, 1], [3, 1]], [1.0, 2.0, NAN], [5, 2])

    def loss_of(weight, x):
        return tf.reduce_mean(tf.sparse.sparse_dense_matmul(x, tf.ones([2, 1]) * weight))

    train(logdir, loss_of, [(x,)])


@origin(step=0, phase="input", tensor="batch[0]", samples=(2,), way="argument")
def value_of_a_ragged_argument_of_two_ragged_dimensions(logdir):
    x = tf.ragged.constant([[[1.0], [2.0, 3.0]], [[4.0]], [[5.0, NAN], [NAN]]])
    train(logdir, lambda weight, x: tf.reduce_mean(x.flat_values * weight), [(x,)])


@healthy
def mask_of_minus_inf_that_is_a_constant(logdir):
    mask, scores = np.array([0.0, -np.inf, 0.0], "float32"), tf.constant([1.0, -np.inf, 2.0])

    def loss_of(weight, x):
        return tf.reduce_sum(tf.nn.softmax(x * weight + mask) + tf.nn.softmax(x * weight + scores))

    train(logdir, loss_of, [(tf.ones([2, 3]),)] * 3)
