"""Small models, each trained by ``fit`` in a way of its own, on batches that may hold a bad sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tests.watch.networks import values

BATCHES = 6
SIZE = 8
POISONED = 3
BAD_ROW = POISONED * SIZE + 5
INFINITE = 1e30
"""Its square is."""

Layers = keras.layers


class Way(NamedTuple):
    """A model to train, and the arguments of its ``fit``."""

    model: Any
    x: Any
    y: Any = None
    fit: Mapping[str, Any] = MappingProxyType({})

    def train(self, *callbacks: Any, **more: Any) -> list[np.ndarray]:
        options = {"batch_size": SIZE, **self.fit, **more}
        given = {"x": self.x, "y": self.y} | options | {"shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
        if not isinstance(self.x, np.ndarray | dict):
            given.pop("batch_size")
        self.model.fit(**given)
        return state(self.model)


def arrays(poison: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCHES * SIZE, 3)).astype("float32")
    y = random.normal(size=(BATCHES * SIZE, 1)).astype("float32")
    if poison is not None:
        y[BAD_ROW] = poison
    return x, y


def without(batch: int, *arrays: np.ndarray) -> list[np.ndarray]:
    return [np.delete(array, slice(batch * SIZE, (batch + 1) * SIZE), axis=0) for array in arrays]


def state(model: Any) -> list[np.ndarray]:
    optimizers = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    slots = [variable for optimizer in optimizers for variable in optimizer.variables]
    return values([*model.variables, *slots, *model.metrics_variables])


def layers(**of_hidden: Any) -> list[Any]:
    return [
        Layers.Dense(8, "relu", name="hidden", **of_hidden),
        Layers.BatchNormalization(name="norm"),
        Layers.Dropout(0.3, seed=4),
        Layers.Dense(1, name="head"),
    ]


def network(kind: Callable[..., Any] = keras.Sequential, optimizer: Any = None, **compiled: Any) -> Any:
    keras.utils.set_random_seed(3)
    model = kind([keras.Input([3]), *layers()])
    model.compile(optimizer or keras.optimizers.Adam(1e-2), "mse", **({"metrics": ["mae"]} | compiled))
    return model


def adam(**options: Any) -> keras.Optimizer:
    return keras.optimizers.Adam(1e-2, **options)


class Subclassed(keras.Model):
    """Has no variables before its first batch, and layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = layers()

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self.parts:
            x = layer(x, training=training) if isinstance(layer, Layers.Dropout) else layer(x)
        return x


class WithComputedLoss(keras.Sequential):
    """A training step of its own, with what ``compile`` was given."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
            penalized = loss + 1e-3 * tf.add_n([tf.nn.l2_loss(weight) for weight in self.trainable_weights])
        gradients = tape.gradient(penalized, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": penalized}


class WithTape(keras.Sequential):
    """A training step with a loss of its own, scaled as Keras asks."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(self(x, training=True), tf.float32) - y))
            scaled = self.optimizer.scale_loss(loss)
        self.optimizer.apply(tape.gradient(scaled, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class Adversaries(keras.Model):
    """A generator and a critic, compiled by a ``compile`` of its own; the critic may be updated several times."""

    def __init__(self, *, critic_steps: int = 1, penalty: float = 0.0) -> None:
        super().__init__()
        keras.utils.set_random_seed(3)
        self.critic_steps, self.penalty = critic_steps, penalty
        self.generator = keras.Sequential(
            [keras.Input([3]), Layers.Dense(8, "relu"), Layers.Dense(1)], name="generator"
        )
        self.critic = keras.Sequential([keras.Input([1]), Layers.Dense(8, "relu"), Layers.Dense(1)], name="critic")
        self.built = True

    def compile(self, *, rates: tuple[float, float] = (1e-2, 1e-2), **more: Any) -> None:
        super().compile(**more)
        self.g_optimizer, self.c_optimizer = [keras.optimizers.Adam(rate) for rate in rates]

    def call(self, noise: Any) -> Any:
        return self.generator(noise)

    def train_step(self, data: Any) -> Any:
        noise, real = data
        for _ in range(self.critic_steps):
            with tf.GradientTape() as tape:
                made = self.generator(noise, training=True)
                loss = tf.reduce_mean(tf.nn.softplus(-self.critic(real)) + tf.nn.softplus(self.critic(made)))
                loss += self.penalty * self.slope(real)
            c_gradients = tape.gradient(loss, self.critic.trainable_weights)
            self.c_optimizer.apply_gradients(zip(c_gradients, self.critic.trainable_weights, strict=True))
        with tf.GradientTape() as tape:
            g_loss = tf.reduce_mean(tf.nn.softplus(-self.critic(self.generator(noise, training=True))))
        g_gradients = tape.gradient(g_loss, self.generator.trainable_weights)
        self.g_optimizer.apply_gradients(zip(g_gradients, self.generator.trainable_weights, strict=True))
        return {"c_loss": loss, "g_loss": g_loss}

    def slope(self, real: Any) -> Any:
        if not self.penalty:
            return 0.0
        with tf.GradientTape() as inner:
            inner.watch(real)
            judged = self.critic(real)
        return tf.reduce_mean(tf.square(inner.gradient(judged, real)))


class Embedded(keras.Model):
    """An embedding, whose gradient is sparse, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = Layers.Embedding(20, 4, name="words")
        self.twice = Layers.Dense(4, "tanh", name="twice")
        self.unused = Layers.Dense(2, name="unused")
        self.head = Layers.Dense(1, name="head")

    def build(self, _: Any) -> None:
        self.unused.build((None, 4))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.head(self.twice(self.twice(tf.reduce_mean(self.words(x), axis=1))))


def functional(parts: list[Any]) -> Any:
    x = y = parts[0]
    for part in parts[1:]:
        y = part(y)
    return keras.Model(x, y)


class Batches(keras.utils.PyDataset):
    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x) // SIZE

    def __getitem__(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x[at * SIZE : (at + 1) * SIZE], self.y[at * SIZE : (at + 1) * SIZE]


def generated(x: np.ndarray, y: np.ndarray) -> Any:
    source = Batches(x, y)
    while True:
        yield from (source[at] for at in range(len(source)))
