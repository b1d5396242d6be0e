"""Layers with the names of other layers, layers that are called twice or nested, and long lines."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


def train(logdir, model, batches):
    """Fit a callable with variables to zeros."""
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(model(x)))  # origin: the model is called
        gradients = tape.gradient(loss, model.trainable_variables)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    with watch:
        for batch in batches:
            train_step(tf.constant(batch))


def dense(units=2, activation=None, **options):
    return keras.layers.Dense(units, activation, kernel_initializer="ones", **options)


# Keras names unnamed layers dense, dense_1, dense_2. A graph calls the first dense_1 if its name is taken. exp uses no
# variable, so only names say whose operation it is.
@origin(step=1, phase="forward", layer="sequential/dense", op="Exp", line="the model is called")
def first_of_three_layers_without_a_name(logdir):
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    model = keras.Sequential([dense(activation="exponential"), dense(activation="tanh"), dense(1)])
    model.build((None, 2))
    train(logdir, model, [[[1.0, 2.0]], [[50.0, 50.0]]])


@origin(step=1, phase="forward", layer="sequential/dense_1", op="Exp", line="the model is called")
def second_of_three_layers_without_a_name(logdir):
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    model = keras.Sequential([dense(), dense(activation="exponential"), dense(activation="exponential")])
    model.build((None, 2))
    train(logdir, model, [[[-1.0, -2.0]], [[50.0, 50.0]]])


class Siamese(keras.Model):
    """Compares the codes of two pictures by one encoder."""

    def __init__(self):
        super().__init__(name="siamese")
        self.encoder = dense(activation="exponential", name="encoder")
        self.other = dense(activation="tanh", name="encoder_1")

    def call(self, pairs):
        left = self.encoder(pairs[:, 0])
        right = self.encoder(pairs[:, 1])  # origin: second call of the encoder
        return left - right + self.other(pairs[:, 0])


# In the graph, the second call of encoder has its own scope, next to the scope of the layer encoder_1.
@origin(step=1, phase="forward", layer="siamese/encoder", op="Exp", line="second call of the encoder")
def second_call_of_a_shared_layer(logdir):
    keras.utils.set_random_seed(1)
    model = Siamese()
    model(tf.zeros((1, 2, 2)))
    train(logdir, model, [[[[1.0, 1.0], [2.0, 2.0]]], [[[1.0, 1.0], [50.0, 50.0]]]])


# In a model that is built alone, the path that Keras gives a layer lacks the outer model's name.
@origin(
    step=1,
    phase="forward",
    layer={"outer/trunk/hidden", "trunk/hidden"},
    op="Exp",
    line="the model is called",
)
def model_in_a_model(logdir):
    keras.utils.set_random_seed(1)
    trunk = keras.Sequential([dense(activation="exponential", name="hidden")], name="trunk")
    model = keras.Sequential([trunk, dense(1, name="head")], name="outer")
    model.build((None, 2))
    train(logdir, model, [[[1.0, 2.0]], [[50.0, 50.0]]])


class Layer(tf.Module):
    """A dense layer as a tf.Module."""

    def __init__(self, units, *, name):
        super().__init__(name=name)
        with self.name_scope:
            self.kernel = tf.Variable(tf.ones((2, units)), name="kernel")

    @tf.Module.with_name_scope
    def __call__(self, x):
        powers = tf.exp(x)  # origin: exp in a module
        return powers @ self.kernel


class Network(tf.Module):
    """Two such layers."""

    def __init__(self):
        super().__init__(name="network")
        with self.name_scope:
            self.first, self.second = Layer(2, name="first"), Layer(1, name="second")

    @tf.Module.with_name_scope
    def __call__(self, x):
        return self.second(self.first(x))


# Both layers take the exponential on one line; in the second it is exp(2 * exp(4)), beyond float32.
@origin(step=1, phase=FORWARD_OR_LOSS, layer="network/second", op="Exp", line="exp in a module")
def module_in_a_module(logdir):
    train(logdir, Network(), [[[0.0, 1.0]], [[4.0, 4.0]]])


# For an expression on several lines, the line is that of the call.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="a call in an expression of several lines")
def expression_on_several_lines(logdir):
    weight = tf.Variable([1.0, 1.0], name="line/weight")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.square(weight * x)
                + tf.exp(-x)
                - tf.math.log(x)  # origin: a call in an expression of several lines
                + tf.tanh(weight)
            )
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for x in ([1.0, 2.0], [1.0, 0.0]):
            train_step(tf.constant(x))
