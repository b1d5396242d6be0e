"""The three networks under measurement: small, medium and large.

The fewer numbers a variable has, the larger is the share of a step that starting its operations takes, and the more one
more operation for each variable costs. The batches are random: the time of a step does not depend on its data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

Clip = Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]]


@dataclass(frozen=True, eq=False)
class Network:
    """A network in training.

    Attributes:
        variables: trainable variables, in the order of the model.
        optimizer: built for these variables.
        loss: returns the loss of a batch, a float32 scalar.
        clip: returns the clipped gradients, in the same order.
        batch: the arguments of every step.
    """

    variables: Sequence[keras.Variable]
    optimizer: keras.Optimizer
    loss: Callable[..., tf.Tensor]
    clip: Clip
    batch: tuple[tf.Tensor, ...]


class WeightNormDense(keras.Layer):
    """A dense layer ``activate(x V g / ||V|| + b)``.

    Sources:
        Salimans and Kingma, Weight Normalization, 2016, equation 2.
    """

    def __init__(self, units: int, *, activate: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__()
        self.units, self.activate = units, activate

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create V, g and b."""
        self.V = self.add_weight(name="V", shape=(input_shape[-1], self.units), initializer="glorot_uniform")
        self.g = self.add_weight(name="g", shape=(self.units,), initializer="ones")
        self.b = self.add_weight(name="b", shape=(self.units,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the layer's output, float32 ``[n, units]``."""
        return self.activate(inputs @ self.V * self.g / tf.norm(self.V, axis=0) + self.b)


def critic() -> Network:
    """Build a critic of reinforcement learning: five weight-normalised layers, batch 64."""
    hidden = [WeightNormDense(64, activate=tf.nn.relu) for _ in range(4)]
    model = keras.Sequential([keras.Input((3,)), *hidden, WeightNormDense(1, activate=tf.identity)])

    def loss(states: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(targets - model(states)))

    def clip(gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        return [tf.clip_by_norm(gradient, 5.0) for gradient in gradients]

    batch = (tf.random.normal([64, 3]), tf.random.normal([64, 1]))
    return _network(model, keras.optimizers.RMSprop(1e-4), loss=loss, clip=clip, batch=batch)


def mnist() -> Network:
    """Build a classifier of digits: three dense layers, batch 128."""
    hidden = [keras.layers.Dense(units, activation="relu") for units in (256, 128)]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])

    def loss(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images)))

    def clip(gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        clipped: Sequence[tf.Tensor] = tf.clip_by_global_norm(gradients, 15.0)[0]
        return clipped

    batch = (tf.random.normal([128, 784]), tf.random.uniform([128], maxval=10, dtype=tf.int64))
    return _network(model, keras.optimizers.SGD(0.01), loss=loss, clip=clip, batch=batch)


def alphazero(batch_size: int = 128) -> Network:
    """Build a policy and a value for 4x8 boards: five residual blocks of 64 filters, not clipped.

    Args:
        batch_size: number of boards in a batch.

    Sources:
        Silver et al., Mastering the game of Go without human knowledge, 2017, "Neural network architecture".
    """
    board = keras.Input((4, 8, 3))
    tower = _conv(board, filters=64)
    for _ in range(5):
        tower = keras.layers.ReLU()(_conv(_conv(tower, filters=64), filters=64, activate=False) + tower)
    policy = keras.layers.Dense(256)(keras.layers.Flatten()(_conv(tower, filters=2, size=1)))
    value = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(_conv(tower, filters=1, size=1)))
    model = keras.Model(board, [policy, keras.layers.Dense(1, activation="tanh")(value)])

    def loss(boards: tf.Tensor, visits: tf.Tensor, outcomes: tf.Tensor) -> tf.Tensor:
        logits, values = model(boards, training=True)
        errors = tf.nn.softmax_cross_entropy_with_logits(visits, logits)[:, None] + tf.square(outcomes - values)
        decay = tf.add_n([tf.nn.l2_loss(variable) for variable in model.trainable_variables])
        return tf.reduce_mean(errors) + 1e-4 * decay

    batch = (
        tf.random.normal([batch_size, 4, 8, 3]),
        tf.nn.softmax(tf.random.normal([batch_size, 256])),
        tf.random.uniform([batch_size, 1], -1, 1),
    )
    return _network(model, keras.optimizers.Adam(1e-4), loss=loss, clip=lambda gradients: gradients, batch=batch)


BUILDERS: dict[str, Callable[[], Network]] = {"critic": critic, "MNIST": mnist, "AlphaZero": alphazero}


def _conv(inputs: keras.KerasTensor, *, filters: int, size: int = 3, activate: bool = True) -> keras.KerasTensor:
    normalised = keras.layers.BatchNormalization()(
        keras.layers.Conv2D(filters, size, padding="same", use_bias=False)(inputs)
    )
    return keras.layers.ReLU()(normalised) if activate else normalised


def _network(
    model: keras.Model,
    optimizer: keras.Optimizer,
    *,
    loss: Callable[..., tf.Tensor],
    clip: Clip,
    batch: tuple[tf.Tensor, ...],
) -> Network:
    optimizer.build(model.trainable_variables)
    return Network(model.trainable_variables, optimizer, loss=loss, clip=clip, batch=batch)
