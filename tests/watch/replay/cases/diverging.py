"""Numbers that grow until float32 cannot hold them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


# With x = 3 the error e is multiplied by 1 - 2 * 9 * 0.5 = -8 in each step, and starts at 6. In step 21 it is
# -6 * 8**21 = -5.5e19, whose square is more than 3.4e38.
@origin(step=21, phase=FORWARD_OR_LOSS, op="Square", line="square of a diverging error")
def learning_rate_too_large(logdir):
    slope = tf.Variable(0.0, name="line/slope")
    optimizer = keras.optimizers.SGD(learning_rate=0.5)
    watch = Watch(logdir, [slope], window=8)

    @watch.step
    def train_step(x, y):
        with tf.GradientTape() as tape:
            error = slope * x - y
            loss = tf.reduce_mean(tf.square(error))  # origin: square of a diverging error
        gradients = tape.gradient(loss, [slope])
        watch.apply_gradients(optimizer, zip(gradients, [slope]), loss=loss)
        return loss

    for _ in range(40):
        train_step(tf.constant([3.0, 3.0]), tf.constant([6.0, 6.0]))


# 1e20 squared is Inf; the gradient, 2 * (w - 1e20), is finite. The reduction's scale keeps it so.
@origin(step=1, phase=FORWARD_OR_LOSS, op={"Square", "SquaredDifference"}, line="an error of 1e20")
def loss_is_inf_and_every_gradient_is_finite(logdir):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.layers.Dense(1, name="value")], name="critic")
    model.build((None, 2))
    optimizer = keras.optimizers.Adam(1e-3)
    with Watch(logdir) as watch:

        def critic_loss(states, returns):
            values = model(states)
            return tf.reduce_mean(tf.math.squared_difference(values, returns))  # origin: an error of 1e20

        @watch.step
        def train_step(states, returns):
            with tf.GradientTape() as tape:
                loss = critic_loss(states, returns)
            gradients = tape.gradient(loss, model.trainable_weights)
            watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

        states = tf.random.normal((4, 2))
        for returns in (1.0, 1e20):
            train_step(states, tf.fill((4, 1), returns))


# Without an activation the state is multiplied by 3 * I in each of the 200 steps: 3**81 is more than float32 holds.
# The cell is a layer too, within the layer that the user named.
@origin(
    step=1,
    phase="forward",
    layer={"reader/memory", "reader/memory/simple_rnn_cell"},
    op="MatMul",
    line="the model is called on a long sequence",
)
def simple_rnn_over_200_steps(logdir):
    keras.utils.set_random_seed(6)
    model = keras.Sequential(
        [
            keras.layers.SimpleRNN(
                4, activation=None, name="memory", recurrent_initializer=keras.initializers.Identity(gain=3.0)
            ),
            keras.layers.Dense(1, name="head"),
        ],
        name="reader",
    )
    model.build((None, 200, 2))
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step(reduce_retracing=True)
    def train_step(x):
        with tf.GradientTape() as tape:
            prediction = model(x, training=True)  # origin: the model is called on a long sequence
            loss = tf.reduce_mean(tf.abs(prediction))
        gradients = tape.gradient(loss, model.trainable_weights)
        watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

    with watch:
        x = np.random.default_rng(1).normal(size=(2, 200, 2)).astype("float32")
        train_step(tf.constant(x * 0))
        train_step(tf.constant(x))


# The state doubles in each round, and 2**128 is more than float32 holds: MatVec is a MatMul and two reshapes.
@origin(
    step=1, phase=FORWARD_OR_LOSS, layer={"cell", None}, op={"MatMul", "BatchMatMulV2"}, line="one turn of the loop"
)
def while_loop_that_doubles_its_state(logdir):
    recurrent = tf.Variable(2.0 * tf.eye(3), name="cell/recurrent")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [recurrent])

    def turn(t, state):
        return t + 1, tf.matmul(state, recurrent)  # origin: one turn of the loop

    def unrolled(state, length):
        _, last = tf.while_loop(lambda t, _: t < length, turn, (0, state), maximum_iterations=200)
        return last

    @watch.step
    def train_step(state, length):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(unrolled(state, length))
        gradients = tape.gradient(loss, [recurrent])
        watch.apply_gradients(optimizer, zip(gradients, [recurrent]), loss=loss)

    with watch:
        for length in (10, 200):
            train_step(tf.ones((1, 3)), tf.constant(length))


def logistic_map(rate):
    def advance(population, _):
        return rate * population * (1.0 - population)  # origin: a population out of bounds

    return advance


# Beyond 1 the population is negative, and its square grows until it overflows. Mul in either of the two places.
@origin(step=1, phase=FORWARD_OR_LOSS, layer={"growth", None}, op="Mul", line="a population out of bounds")
def scan_of_a_quadratic_map(logdir):
    rate = tf.Variable(3.0, name="growth/rate")
    optimizer = keras.optimizers.Adam(1e-3)
    watch = Watch(logdir)

    @watch.step
    def train_step(start):
        with tf.GradientTape() as tape:
            trajectory = tf.scan(logistic_map(rate), tf.zeros(50), initializer=start)
            loss = tf.reduce_mean(trajectory)
        gradients = tape.gradient(loss, [rate])
        watch.apply_gradients(optimizer, zip(gradients, [rate]), loss=loss)

    with watch:
        train_step(tf.constant(0.3))
        train_step(tf.constant(1.2))


def train_deep_network(logdir, factors, sizes):
    """Train one layer for each factor; the layer multiplies by it."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(factor), name=f"layer_{place}")
        for place, factor in enumerate(factors)
    ]
    model = keras.Sequential(layers, name="deep")
    model.build((None, 1))
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, model.trainable_variables)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True))  # origin: a deep network
        gradients = tape.gradient(loss, model.trainable_weights)
        clipped = [tf.clip_by_value(gradient, -1.0, 1.0) for gradient in gradients]
        watch.apply_gradients(optimizer, zip(clipped, model.trainable_variables), raw=gradients, loss=loss)

    with watch:
        for size in sizes:
            train_step(tf.fill((32, 1), size))


# Seven layers multiply by a million, and 1e42 is beyond float32; the eighth comes too late. The gradient, which comes
# from the other end, is 1e33 at most.
@origin(step=1, phase="forward", layer="deep/layer_6", op="MatMul", line="a deep network")
def seventh_layer_of_eight(logdir):
    train_deep_network(logdir, [1e6] * 7 + [1e-3], [0.0, 1.0])


# The gradient of each of 32 samples is 1/32 as it leaves the loss, 3e34 after six layers, and 3e40 after the seventh,
# counted from the loss.
@origin(step=0, phase="backward", layer="deep/layer_1", op="MatMul", line="a deep network")
def gradient_that_explodes_on_its_way_to_the_first_layer(logdir):
    train_deep_network(logdir, [1e6] * 8, [0.0, 1.0])
