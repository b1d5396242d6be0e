"""Programs in which a library or the user guards against 0 / 0 or the logarithm of 0."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import healthy


def train(logdir, model, loss_of, *, batches):
    """Fit a model to pairs of features and labels."""
    optimizer = keras.optimizers.SGD(0.01)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_weights)
        clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
        watch.apply_gradients(optimizer, zip(clipped, model.trainable_variables), raw=gradients, loss=loss)

    with watch:
        for x, y in batches:
            train_step(tf.constant(x), tf.constant(y))


def dense(units, activation=None, *, inputs=2):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.layers.Dense(units, activation, kernel_initializer="ones", use_bias=False, name="head")], name="net"
    )
    model.build((None, inputs))
    model.layers[0].kernel.assign_add(tf.range(2.0 * units)[None, :units] * 0.5)
    return model


# Probabilities of 0 and 1 in the wrong places: Keras clips them before it takes the log.
@healthy
def keras_cross_entropy_of_probabilities_of_0(logdir):
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=False)
    train(logdir, dense(3, "softmax"), loss_of, batches=[([[size, size]], [[1.0, 0.0, 0.0]]) for size in (1.0, 500.0)])


@healthy
def keras_binary_cross_entropy_of_a_certain_error(logdir):
    loss_of = keras.losses.BinaryCrossentropy()
    train(logdir, dense(1, "sigmoid"), loss_of, batches=[([[size, size]], [[0.0]]) for size in (1.0, 90.0)])


@healthy
def keras_divergence_of_one_hot_targets(logdir):
    loss_of = keras.losses.KLDivergence()
    train(logdir, dense(3, "softmax"), loss_of, batches=[([[1.0, size]], [[0.0, 0.0, 1.0]]) for size in (0.0, 300.0)])


@healthy
def keras_cosine_similarity_of_a_zero_vector(logdir):
    loss_of = keras.losses.CosineSimilarity()
    train(logdir, dense(2), loss_of, batches=[([[1.0, 1.0]], [[0.0, 0.0]]), ([[0.0, 0.0]], [[1.0, 0.0]])])


@healthy
def batch_norm_of_one_sample(logdir):
    model = keras.Sequential([keras.layers.BatchNormalization(name="norm"), *dense(1).layers], name="lonely")
    model.build((None, 2))
    loss_of = keras.losses.MeanSquaredError()
    train(logdir, model, loss_of, batches=[([[1.0, size]], [[1.0]]) for size in (0.0, 5.0, 5.0)])


@healthy
def entropy_with_xlogy(logdir):
    def entropy(_, p):
        return tf.reduce_sum(tf.math.xlogy(p, p))

    train(logdir, dense(2, "softmax"), entropy, batches=[([[size, 1.0]], [[0.0]]) for size in (1.0, 400.0)])


# A segment that nothing belongs to has mean 0, and divide_no_nan is 0 where it divides by 0.
@healthy
def means_of_empty_segments(logdir):
    def loss_of(weights, values):
        means = tf.math.unsorted_segment_mean(values, [0, 0, 2], num_segments=4)
        shares = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=0))
        return tf.reduce_sum(means * shares)

    batches = [([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[1.0], [0.0], [0.0], [1.0]])] * 3
    train(logdir, dense(1), loss_of, batches=batches)


# The square of 1e20 is Inf in float32, and exp(-Inf) is 0, as it should be; so is its gradient.
@healthy
def gaussian_kernel_of_points_far_apart(logdir):
    def loss_of(_, points):
        distances = tf.reduce_sum((points[:, None] - points[None]) ** 2, axis=-1)
        return tf.reduce_mean(tf.exp(-distances))

    train(logdir, dense(2), loss_of, batches=[([[0.0, 1.0], [2.0, 3.0], [1e20, 1.0]], [[0.0]])] * 3)


# The second sentence is all padding; Keras masks by a large number and not by Inf.
@healthy
def keras_attention_with_a_row_of_padding(logdir):
    keras.utils.set_random_seed(5)
    words = keras.Input((4,), dtype="int32")
    vectors = keras.layers.Embedding(7, 4, mask_zero=True, name="words")(words)
    attended = keras.layers.MultiHeadAttention(2, 2, name="attention")(vectors, vectors, use_causal_mask=True)
    model = keras.Model(words, keras.layers.Dense(1, name="head")(attended), name="reader")
    batches = [([[1, 2, 3, 0], [0, 0, 0, 0]], [[[1.0]] * 4] * 2)] * 2
    train(logdir, model, keras.losses.MeanSquaredError(), batches=batches)
