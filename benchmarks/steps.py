"""The training step under measurement, bare and watched: the same lines except for the watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

import tb_nanwatch
from benchmarks.networks import Network

Step = Callable[[], tf.Tensor]


def bare_step(network: Network, *, xla: bool = False) -> Step:
    """Return an unwatched step; call it to take the step.

    Args:
        network: the network that the step trains.
        xla: whether XLA compiles it.
    """

    @tf.function(jit_compile=xla or None)
    def train_step(*batch: tf.Tensor) -> tf.Tensor:
        loss, gradients = _loss_and_gradients(network, batch)
        network.optimizer.apply_gradients(zip(network.clip(gradients), network.variables, strict=True))
        return loss

    return lambda: train_step(*network.batch)


def watched_step(network: Network, watch: tb_nanwatch.Watch, *, xla: bool = False) -> Step:
    """Return a watched step; call it to take the step.

    Args:
        network: the network that the step trains.
        watch: of its variables.
        xla: whether XLA compiles it.
    """

    @watch.step(jit_compile=xla or None)
    def train_step(*batch: tf.Tensor) -> tf.Tensor:
        loss, gradients = _loss_and_gradients(network, batch)
        clipped = zip(network.clip(gradients), network.variables, strict=True)
        watch.apply_gradients(network.optimizer, clipped, raw=gradients, loss=loss)
        return loss

    return lambda: train_step(*network.batch)


def _loss_and_gradients(network: Network, batch: Sequence[tf.Tensor]) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
    with tf.GradientTape() as tape:
        loss = network.loss(*batch)
    return loss, tape.gradient(loss, [variable.value for variable in network.variables])
