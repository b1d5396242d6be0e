"""The network that every way to train uses, and its batches.

One batch holds a 0 under a square root. The loss stays finite; the gradient of the root's layer does not.
"""

from __future__ import annotations

from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

BAD_STEP: Final = 5
STEPS: Final = 200
FEW_STEPS: Final = 12
SIZE: Final = 16

Batch = tuple[np.ndarray, np.ndarray]


def batches(*, steps: int = STEPS, bad: bool = False) -> list[Batch]:
    """Return batches of 16 samples. In the bad batch, sample 3 has a 0."""
    random = np.random.default_rng(0)
    x = random.uniform(0.5, 2.0, size=(steps, SIZE, 3)).astype("float32")
    y = random.normal(size=(steps, SIZE, 1)).astype("float32")
    if bad:
        x[BAD_STEP, 3, 1] = 0.0
    return list(zip(x, y, strict=True))


class Root(keras.layers.Layer):
    """The square root of the input times a gain. Its slope at 0 is not finite."""

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(self.gain * x)


class Network:
    """Four layers, each built alone, so that the name of a variable begins with its layer."""

    def __init__(self, *, mixed: bool = False, is_built: bool = True) -> None:
        keras.utils.set_random_seed(5)
        policy = {"dtype": "mixed_float16"} if mixed else {}
        self.layers = [
            Root(name="root"),
            keras.layers.Dense(8, "tanh", name="hidden", **policy),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, name="head"),
        ]
        if is_built:
            self.build()

    def build(self) -> None:
        for layer, width in zip(self.layers, (3, 3, 8, 8), strict=True):
            layer.build((None, width))

    @property
    def variables(self) -> list[keras.Variable]:
        return [variable for layer in self.layers for variable in layer.trainable_variables]

    def loss(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        for layer in self.layers:
            x = layer(x, training=True) if isinstance(layer, keras.layers.BatchNormalization) else layer(x)
        return tf.reduce_mean(tf.square(tf.cast(x, tf.float32) - y))

    def gradients(self, x: tf.Tensor, y: tf.Tensor, scale: Any = None) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = self.loss(x, y)
            target = loss if scale is None else scale(loss)
        # The loss has built the layers that were not built before.
        return loss, tape.gradient(target, self.variables)

    def state(self, *optimizers: keras.optimizers.Optimizer) -> list[np.ndarray]:
        """Return the weights, the batch-norm statistics and the optimizers' slots."""
        weights = [variable for layer in self.layers for variable in layer.variables]
        slots = [slot for optimizer in optimizers for slot in optimizer.variables]
        return [np.asarray(variable.numpy()) for variable in (*weights, *slots)]
