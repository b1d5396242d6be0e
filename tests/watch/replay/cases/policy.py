"""Reinforcement learning and attention: probabilities of 0, and masks of -Inf that reach the loss."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


class Agent:
    """A policy over three actions, with its training step as a method."""

    def __init__(self, logdir):
        keras.utils.set_random_seed(13)
        self.policy = keras.Sequential([keras.layers.Dense(3, use_bias=False, name="logits")], name="policy")
        self.policy.build((None, 2))
        self.policy.set_weights([np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]])])
        self.optimizer = keras.optimizers.SGD(0.0)
        self.watch = Watch(logdir, self.policy.trainable_variables)
        self.train_step = self.watch.step(self.learn)

    def log_probability(self, states, actions):
        probabilities = tf.nn.softmax(self.policy(states))
        taken = tf.gather(probabilities, actions, axis=1, batch_dims=1)
        return tf.math.log(taken)  # origin: log of the probability of what was done

    def learn(self, states, actions, returns):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.log_probability(states, actions) * self.normalised(returns))
        gradients = tape.gradient(loss, self.policy.trainable_weights)
        pairs = zip(gradients, self.policy.trainable_variables)
        self.watch.apply_gradients(self.optimizer, pairs, raw=gradients, loss=loss)

    def normalised(self, returns):
        advantages = returns - tf.reduce_mean(returns)
        return advantages / tf.math.reduce_std(returns)  # origin: returns that are all the same


# With logits 60 and -60 the last action has probability exp(-120), which is 0 in float32.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="log of the probability of what was done", samples=(1,))
def policy_gradient_of_an_impossible_action(logdir):
    agent = Agent(logdir)
    with agent.watch:
        for size in (1.0, 60.0):
            agent.train_step(tf.constant([[1.0, 0.0]] * 2) * size, tf.constant([0, 2]), tf.constant([1.0, 3.0]))


@origin(step=2, phase=FORWARD_OR_LOSS, op="RealDiv", line="returns that are all the same", samples=(0, 1, 2))
def advantages_of_equal_returns(logdir):
    agent = Agent(logdir)
    returns = [[1.0, 2.0, 3.0], [4.0, 5.0, 9.0], [7.0, 7.0, 7.0]]
    with agent.watch:
        for batch in returns:
            agent.train_step(tf.ones((3, 2)), tf.constant([0, 1, 2]), tf.constant(batch))


# tanh(12) is 1 in float32, and log(1 - 1) is -Inf.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="correction for tanh")
def squashed_gaussian_at_its_bound(logdir):
    mean = tf.Variable([0.5, -0.5], name="actor/mean")
    optimizer = keras.optimizers.Adam(3e-4)
    watch = Watch(logdir)

    def entropy_bonus(noise, deviation):
        action = tf.tanh(mean + deviation * noise)
        correction = tf.math.log(1.0 - action**2)  # origin: correction for tanh
        return tf.reduce_mean(0.5 * noise**2 + correction)

    @watch.step
    def train_step(noise, deviation):
        with tf.GradientTape() as tape:
            loss = entropy_bonus(noise, deviation)
        watch.apply_gradients(optimizer, [(tape.gradient(loss, mean), mean)], loss=loss)

    with watch:
        for deviation in (1.0, 10.0):
            train_step(tf.constant([0.1, 1.2]), tf.constant(deviation))


# The mask leaves a row of nothing but -Inf, whose softmax is 0 / 0. In data flow, the first non-finite value is
# the -Inf that the user wrote; it is an input of the softmax.
@origin(
    step=1,
    phase=FORWARD_OR_LOSS,
    layer="attention",
    op={"Const", "SelectV2", "Softmax"},
    line="a row that is masked from end to end",
)
def attention_over_nothing(logdir):
    keras.utils.set_random_seed(2)
    kernel = tf.Variable(tf.random.normal((3, 3)), name="attention/kernel")
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, [kernel])

    def attend(x, mask):
        scores = tf.matmul(x @ kernel, x, transpose_b=True)
        with tf.name_scope("attention"):
            weights = tf.nn.softmax(tf.where(mask, scores, -np.inf))  # origin: a row that is masked from end to end
        return weights @ x

    @watch.step
    def train_step(x, mask):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(attend(x, mask) - x))
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        for second in (True, False):
            train_step(tf.ones((2, 3)), tf.constant([[True, False], [second, second]]))


# A scope that the user opened is the layer of the operations in it.
@origin(step=1, phase=FORWARD_OR_LOSS, layer="critic/target", op="Mul", line="a discounted sum that overflows")
def bootstrapped_target_in_a_name_scope(logdir):
    value = tf.Variable(2.0, name="value")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [value])

    @watch.step
    def train_step(reward, discount):
        with tf.GradientTape() as tape, tf.name_scope("critic"):
            prediction = value * reward
            with tf.name_scope("target"):
                target = (reward + value) * discount  # origin: a discounted sum that overflows
            loss = tf.abs(target - prediction)
        watch.apply_gradients(optimizer, [(tape.gradient(loss, value), value)], loss=loss)

    with watch:
        train_step(tf.constant(1.0), tf.constant(0.9))
        train_step(tf.constant(1e30), tf.constant(1e9))
