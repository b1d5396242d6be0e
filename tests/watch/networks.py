"""Networks whose forward pass changes state, and their training steps, watched or bare."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch

BATCHES = 20
POISONED = 7


def batches(*, poison: float | None = None) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Return small batches, one of which has a bad sample."""
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCHES, 16, 3)).astype("float32")
    y = random.normal(size=(BATCHES, 16, 1)).astype("float32")
    if poison is not None:
        y[POISONED, 3] = poison
    return [(tf.constant(a), tf.constant(b)) for a, b in zip(x, y, strict=True)]


class Stateful:
    """Batch norm, dropout from a seed generator, Adam, and a metric that is updated after the weights."""

    def __init__(self, watch: Watch | None = None) -> None:
        keras.utils.set_random_seed(3)
        self.watch = watch
        self.model = keras.Sequential(
            [
                keras.layers.Dense(8, "relu", name="hidden"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Dropout(0.3, seed=4),
                keras.layers.Dense(1, name="head"),
            ]
        )
        self.model.build((None, 3))
        self.optimizer = keras.optimizers.Adam(1e-2)
        self.optimizer.build(self.model.trainable_variables)
        self.mean_loss = keras.metrics.Mean(name="mean_loss")

    def step(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(x, training=True) - y))
        pairs = list(zip(tape.gradient(loss, self.model.trainable_variables), self.model.trainable_variables))
        if self.watch is None:
            self.optimizer.apply_gradients(pairs)
        else:
            self.watch.apply_gradients(self.optimizer, pairs, loss=loss)
        self.mean_loss.update_state(loss)
        return loss

    def state(self) -> list[np.ndarray]:
        return values([*self.model.variables, *self.optimizer.variables, *self.mean_loss.variables])


class Adversaries:
    """A generator and a discriminator, each with an optimizer, updated one after the other in one step."""

    def __init__(self, watch: Watch | None = None) -> None:
        keras.utils.set_random_seed(3)
        self.watch = watch
        self.generator = keras.Sequential([keras.layers.Dense(8, "relu", name="g1"), keras.layers.Dense(3, name="g2")])
        self.critic = keras.Sequential([keras.layers.Dense(8, "relu", name="c1"), keras.layers.Dense(1, name="c2")])
        self.generator.build((None, 1))
        self.critic.build((None, 3))
        self.optimizers = [keras.optimizers.Adam(1e-2), keras.optimizers.Adam(1e-2)]

    @property
    def variables(self) -> list[keras.Variable]:
        return [*self.critic.trainable_variables, *self.generator.trainable_variables]

    def step(self, x: tf.Tensor, z: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softplus(-self.critic(x)) + tf.nn.softplus(self.critic(self.made_of(z))))
        self.apply(0, tape, loss, self.critic.trainable_variables)
        with tf.GradientTape() as tape:
            made = self.generator(z)
            size = tf.reduce_mean(tf.square(made))
            loss = tf.reduce_mean(tf.nn.softplus(-self.critic(tf.tanh(made)))) + 1e-4 * size
        self.apply(1, tape, loss, self.generator.trainable_variables)

    def made_of(self, z: tf.Tensor) -> tf.Tensor:
        return tf.tanh(self.generator(z))

    def apply(self, number: int, tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[keras.Variable]) -> None:
        pairs = list(zip(tape.gradient(loss, variables), variables, strict=True))
        if self.watch is None:
            self.optimizers[number].apply_gradients(pairs)
        else:
            self.watch.apply_gradients(self.optimizers[number], pairs, loss=loss)

    def state(self) -> list[np.ndarray]:
        own = [variable for optimizer in self.optimizers for variable in optimizer.variables]
        return values([*self.generator.variables, *self.critic.variables, *own])


def values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [np.asarray(variable.numpy()) for variable in variables]


def same(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> bool:
    """Return whether two states are equal, bit for bit."""
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
