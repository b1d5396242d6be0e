"""Steps with several updates: all that belongs to the first comes before all that belongs to the second."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


class Pair:
    """Two layers, an optimizer and a loss of each; the second loss is taken after the first update, of both layers."""

    def __init__(self, logdir, *, rate=0.1):
        keras.utils.set_random_seed(1)
        self.critic, self.actor = (keras.layers.Dense(1, use_bias=False, name=name) for name in ("critic", "actor"))
        self.critic.build([None, 2])
        self.actor.build([None, 1])
        for layer in (self.critic, self.actor):
            layer.kernel.assign(tf.ones_like(layer.kernel))
        self.optimizers = keras.optimizers.SGD(rate), keras.optimizers.SGD(0.1)
        self.watch = Watch(logdir)

    def train(self, first, second, *batches):
        @self.watch.step
        def train_step(x):
            with tf.GradientTape() as tape:
                loss = first(self.critic(x), x)
            self.update(0, self.critic, tape, loss)
            with tf.GradientTape() as tape:
                loss = second(self.actor(self.critic(x)), x)
            self.update(1, self.actor, tape, loss)

        with self.watch:
            for batch in batches:
                train_step(tf.constant(batch))

    def update(self, place, layer, tape, loss):
        gradients = tape.gradient(loss, layer.trainable_weights)
        pairs = zip(gradients, layer.trainable_weights, strict=True)
        self.watch.apply_gradients(self.optimizers[place], pairs, loss=loss)


def mean(y, _):
    return tf.reduce_mean(y)


GOOD, ZERO = [[1.0, 2.0], [3.0, 1.0]], [[1.0, 2.0], [0.0, 0.0]]


# The gradient of the first loss makes the critic bad, and with it the second loss: by then it is the first one's.
@origin(step=1, phase=FORWARD_OR_LOSS, op="Log", line="first of two losses")
def bad_loss_before_another_update(logdir):
    def first(y, x):
        logs = tf.math.log(tf.reduce_sum(x, axis=1) + 0.0 * y[:, 0])  # origin: first of two losses
        return tf.reduce_mean(logs)

    Pair(logdir).train(first, mean, GOOD, ZERO)


# The root of 0 is 0 and only its slope is infinite, so the first loss is finite, and no loss may be named.
@origin(step=1, phase="backward", layer=None, op="SqrtGrad", line="slope in the first update")
def bad_gradient_before_another_update(logdir):
    def first(y, x):
        roots = tf.sqrt(y)  # origin: slope in the first update
        return tf.reduce_mean(roots)

    Pair(logdir).train(first, mean, GOOD, ZERO)


# All that the first update was given is finite; what it makes of that is not, and the second loss reads it.
@origin(step=0, phase="update", layer="critic", op="Mul", variable="critic/kernel")
def first_update_that_overflows_before_the_second(logdir):
    def first(y, x):
        return tf.reduce_mean(y) * 1e10

    Pair(logdir, rate=1e30).train(first, mean, GOOD)


# Both losses are taken before either update, and both are bad: the first update's loss is the first.
@origin(step=0, phase=FORWARD_OR_LOSS, op="Reciprocal", line="loss of the first update", also=("loss of the second",))
def two_losses_taken_before_both_updates(logdir):
    pair = Pair(logdir)
    critic, actor, watch = pair.critic, pair.actor, pair.watch

    @watch.step
    def train_step(x):
        with tf.GradientTape(persistent=True) as tape:
            seen = critic(x)
            for_actor = tf.reduce_mean(tf.math.log(x[:, 0]) * actor(seen)[:, 0])  # origin: loss of the second
            for_critic = tf.reduce_mean(tf.math.reciprocal(x[:, 0]) * seen[:, 0])  # origin: loss of the first update
        pair.update(0, critic, tape, for_critic)
        pair.update(1, actor, tape, for_actor)

    with watch:
        train_step(tf.constant(ZERO))
