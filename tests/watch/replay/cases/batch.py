"""Non-finite values that no operation made: they came with the batch, or were in a variable before the first step."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import origin


def house_prices():
    """Six batches of eight houses: five features, one price."""
    random = np.random.default_rng(3)
    return random.normal(size=(6, 8, 5)).astype("float32"), random.normal(size=(6, 8, 1)).astype("float32")


def train_prices(logdir, features, prices):
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [keras.layers.Dense(6, "tanh", name="hidden"), keras.layers.Dense(1, name="price")], name="houses"
    )
    model.build((None, 5))
    optimizer = keras.optimizers.Adam(1e-2)

    with Watch(logdir, model.trainable_variables) as watch:

        @watch.step
        def train_step(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
            gradients = tape.gradient(loss, model.trainable_weights)
            clipped, _ = tf.clip_by_global_norm(gradients, 5.0)
            watch.apply_gradients(optimizer, zip(clipped, model.trainable_variables), raw=gradients, loss=loss)
            return loss

        for x, y in zip(features, prices):
            train_step(tf.constant(x), tf.constant(y))


@origin(step=4, phase="input", tensor="x", samples=(3,))
def nan_in_one_feature(logdir):
    features, prices = house_prices()
    features[4, 3, 1] = np.nan
    train_prices(logdir, features, prices)


@origin(step=2, phase="input", tensor="y", samples=(7,))
def inf_in_one_label(logdir):
    features, prices = house_prices()
    prices[2, 7] = np.inf
    train_prices(logdir, features, prices)


@origin(step=3, phase="input", tensor="x", samples=(1, 6), also=("y",))
def nan_in_features_and_inf_in_a_label(logdir):
    features, prices = house_prices()
    features[3, [1, 6], 4] = np.nan
    prices[3, 2] = -np.inf
    train_prices(logdir, features, prices)


@origin(step=1, phase="input", tensor="weights", samples=(5,))
def nan_in_a_sample_weight(logdir):
    # A weight of 0 / 0, for a group that has no member in this epoch.
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.layers.Dense(3, name="scores")], name="grouped")
    model.build((None, 4))
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(images, labels, weights):
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images), sample_weight=weights)
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    images, labels = tf.random.normal((8, 4)), tf.constant([0, 1, 2, 0, 1, 2, 0, 1])
    train_step(images, labels, weights=tf.ones(8))
    weights = np.ones(8, "float32")
    weights[5] = np.nan
    train_step(images, labels, weights=tf.constant(weights))
    watch.close()


@origin(step=2, phase="input", tensor="batch['image']", samples=(1,))
def nan_in_a_batch_that_is_a_dictionary(logdir):
    # Each picture is divided by its largest pixel, which is 0 in a black picture.
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2, name="head")], name="small")
    model.build((None, 3, 3))
    optimizer = keras.optimizers.AdamW(1e-3)
    watch = Watch(logdir, model.trainable_variables, window=2)

    @watch.step
    @tf.function(reduce_retracing=True)
    def train_step(batch):
        with tf.GradientTape() as tape:
            logits = model(batch["image"], training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits))
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    pictures = np.random.default_rng(2).random((3, 2, 3, 3), "float32")
    pictures[2, 1] = 0
    with np.errstate(invalid="ignore"):
        pictures /= pictures.max(axis=(2, 3), keepdims=True)
    with watch:
        for picture in pictures:
            train_step({"image": tf.constant(picture), "label": tf.constant([0, 1])})


# The array is no argument: the step makes a constant of it as it is traced.
@origin(step=0, phase="input", line="class weights of an absent class", tensor="class_weights", way="constant")
def inf_in_a_class_weight(logdir):
    keras.utils.set_random_seed(5)
    kernel = tf.Variable(tf.random.normal((4, 3)), name="classifier/kernel")
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    with np.errstate(divide="ignore"):
        class_weights = (len(labels) / np.bincount(labels, minlength=3)).astype("float32")
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, [kernel])

    def weighted(errors):
        return errors * tf.constant(class_weights)  # origin: class weights of an absent class

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            errors = tf.one_hot(y, 3) - tf.nn.softmax(x @ kernel)
            loss = tf.reduce_mean(tf.square(weighted(errors)))
        gradient = tape.gradient(loss, kernel)
        watch.apply_gradients(optimizer, [(gradient, kernel)], loss=loss)

    with watch:
        train_step(tf.random.normal((8, 4)), tf.constant(labels))


@origin(step=0, phase="weights", layer="encoder/head", variable="encoder/head/kernel")
def weights_that_were_inf_before_training(logdir):
    keras.utils.set_random_seed(9)
    model = keras.Sequential(
        [keras.layers.Dense(4, "relu", name="hidden"), keras.layers.Dense(2, name="head")], name="encoder"
    )
    model.build((None, 3))
    saved = model.get_weights()
    saved[2] = np.copysign(np.inf, saved[2])
    model.set_weights(saved)
    optimizer = keras.optimizers.Adam()

    with Watch(logdir, model.trainable_variables) as watch:

        @watch.step
        def train_step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x)))
            gradients = tape.gradient(loss, model.trainable_weights)
            watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

        # The Inf may be intended until an operation that reads it goes bad.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "tb_nanwatch takes the Inf")
            for _ in range(3):
                train_step(tf.random.normal((5, 3)))
