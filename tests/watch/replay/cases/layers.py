"""Origins inside Keras layers: the layer is named, and the line is the user's, in the layer or where it is called."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tb_nanwatch import Watch
from tests.watch.replay.case import origin


def train(logdir, model, batches, *, optimizer=None):
    """Fit a model to ones."""
    optimizer = optimizer or keras.optimizers.SGD(0.01)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            prediction = model(x, training=True)  # origin: the model is called
            loss = tf.reduce_mean(tf.square(tf.cast(prediction, tf.float32) - 1.0))
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    with watch:
        for batch in batches:
            train_step(batch)


class Harmonic(keras.layers.Layer):
    """Returns the inverse of its input, with a weight for each feature."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        inverse = 1.0 / inputs  # origin: one over 0
        return self.scale * inverse


@origin(step=1, phase="forward", layer="mean/harmonic", op="RealDiv", line="one over 0", samples=(0, 2))
def one_over_zero_in_a_layer_of_ones_own(logdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([Harmonic(name="harmonic"), keras.layers.Dense(1, name="head")], name="mean")
    model.build((None, 2))
    train(logdir, model, [tf.constant([[1.0, 2.0]] * 3), tf.constant([[0.0, 2.0], [1.0, 1.0], [1.0, 0.0]])])


# In a functional model, Keras uses only the layer's name as its path. The scope has the model's name too.
@origin(step=1, phase="forward", layer={"invert", "network/invert"}, op={"RealDiv", "Reciprocal"}, line="in a Lambda")
def one_over_zero_in_a_lambda(logdir):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(3, "relu", kernel_initializer="ones", name="hidden")(inputs)
    inverse = keras.layers.Lambda(
        lambda tensor: 1 / tensor,  # origin: in a Lambda
        name="invert",
    )(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(inverse), name="network")
    train(logdir, model, [tf.constant([[1.0, 2.0]]), tf.constant([[1.0, -2.0]])])


class Encoder(keras.Model):
    """The half of a variational autoencoder that draws a code."""

    def __init__(self):
        super().__init__(name="encoder")
        self.mean = keras.layers.Dense(2, name="mean")
        self.log_variance = keras.layers.Dense(2, name="log_variance")

    def call(self, inputs):
        mean, log_variance = self.mean(inputs), self.log_variance(inputs)
        deviation = ops.exp(0.5 * log_variance)  # origin: exp of a large log-variance
        return mean + deviation * tf.random.stateless_normal(tf.shape(mean), seed=(1, 2))


@origin(step=2, phase="forward", layer="encoder", op="Exp", line="exp of a large log-variance")
def exp_of_a_large_log_variance(logdir):
    keras.utils.set_random_seed(7)
    model, x = Encoder(), tf.random.normal((4, 3)) ** 2
    model(x)
    model.log_variance.kernel.assign(tf.ones((3, 2)))
    train(logdir, model, [0.1 * x, x, 1000.0 * x], optimizer=keras.optimizers.SGD(0.0))


# A row of equal numbers has variance 0; rsqrt(0) is Inf, and 0 * Inf is NaN.
@origin(step=1, phase="forward", layer="block/norm", op="Rsqrt", line="the model is called", samples=(1,))
def layer_norm_without_epsilon(logdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.LayerNormalization(epsilon=0.0, name="norm"), keras.layers.Dense(1, name="head")], name="block"
    )
    model.build((None, 4))
    train(logdir, model, [tf.constant([[1.0, 2, 3, 4], [4, 3, 2, 0]]), tf.constant([[1.0, 2, 3, 4], [5, 5, 5, 5]])])


# A sentence of nothing but padding has a mask of zeros, and the mean over it is 0 / 0.
@origin(step=1, phase="forward", layer="sentiment/average", op="RealDiv", line="the model is called", samples=(2,))
def average_of_a_sentence_of_padding(logdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Embedding(9, 3, mask_zero=True, name="words"),
            keras.layers.GlobalAveragePooling1D(name="average"),
            keras.layers.Dense(1, name="head"),
        ],
        name="sentiment",
    )
    model.build((None, 4))
    sentences = np.array([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0]])
    empty = sentences * [[1], [1], [0]]
    train(logdir, model, [tf.constant(sentences), tf.constant(empty)])


# float16 ends at 65,504. The 70,000 becomes Inf when the model casts its input, before the first layer is entered, and
# Keras casts it on behalf of that layer.
@origin(
    step=1,
    phase="forward",
    layer={None, "half", "half/hidden"},
    op="Cast",
    line="the model is called",
    samples=(1,),
)
def cast_to_float16_that_overflows(logdir):
    keras.utils.set_random_seed(1)
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.layers.Dense(4, "tanh", dtype=policy, name="hidden"),
            keras.layers.Dense(1, dtype="float32", name="head"),
        ],
        name="half",
    )
    model.build((None, 2))
    train(logdir, model, [tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[1.0, 2.0], [3.0, 7e4]])])


class Direction(keras.layers.Layer):
    """Scales each row to length 1."""

    def call(self, rows):
        return rows / tf.norm(rows, axis=-1, keepdims=True)  # origin: a row that dropout emptied


# Half of three features are dropped: one row in eight is all zeros. Another draw of the mask would be finite, so the
# replay needs the state that the seed generator had.
@origin(step=5, phase="forward", layer="noisy/direction", op="RealDiv", line="a row that dropout emptied", samples=(0,))
def dropout_that_empties_a_row(logdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Dropout(0.5, seed=3, name="drop"),
            Direction(name="direction"),
            keras.layers.Dense(1, name="head"),
        ],
        name="noisy",
    )
    model.build((None, 3))
    train(logdir, model, [tf.constant([[1.0, 2.0, 3.0]])] * 20)


# Without an epsilon, a batch of one has variance 0.
@origin(step=1, phase="forward", layer="lonely/norm", op="Rsqrt", line="the model is called")
def batch_norm_of_one_sample_without_epsilon(logdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.Dense(2, name="hidden"), keras.layers.BatchNormalization(epsilon=0.0, name="norm")], name="lonely"
    )
    model.build((None, 3))
    x = tf.random.normal((5, 3))
    train(logdir, model, [x, x[:1]])


# This Keras loss takes the logarithm of a prediction below 0. It is NaN there, and its gradient is finite. The scope is
# Keras' own and no layer.
@origin(step=1, phase={"forward", "loss"}, layer={None, "counts", "poisson"}, op="Log", line="loss of Keras'")
def poisson_loss_of_a_negative_rate(logdir):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones", name="rate")], name="counter")
    model.build((None, 2))
    loss_of, optimizer = keras.losses.Poisson(name="counts"), keras.optimizers.SGD(0.0)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x))  # origin: loss of Keras'
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    with watch:
        for x in ([[1.0, 2.0]], [[1.0, -3.0]]):
            train_step(tf.constant(x), tf.constant([[2.0]]))
