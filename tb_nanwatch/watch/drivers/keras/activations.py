"""The outputs of layers, measured in every so many steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tb_nanwatch.watch.api import Watch
from tb_nanwatch.watch.drivers.keras.losses import NotedLosses
from tb_nanwatch.watch.drivers.keras.shadow import Shadow


class Activations:
    """Watches what the layers of a model return in its training step, until they are put back."""

    def __init__(self, model: Any, losses: NotedLosses, watch: Watch, *, every: int | None) -> None:
        """Wrap the layers; those that only hold other layers are left as they are.

        Args:
            model: of Keras, with an optimizer.
            losses: knows whether a training step is being run or traced.
            watch: of the training.
            every: in how many steps of the optimizer once; ``None`` for never.
        """
        self._losses, self._watch = losses, watch
        self._every, self._optimizer = every, getattr(model.optimizer, "inner_optimizer", model.optimizer)
        layers = [] if every is None else model._flatten_layers(include_self=False)
        measured = [layer for layer in layers if not isinstance(layer, keras.Model | keras.layers.InputLayer)]
        self._shadows = [Shadow(layer, {"call": self._noting(layer)}) for layer in measured]

    def put_back(self) -> None:
        """Leave the layers as they were."""
        for shadow in self._shadows:
            shadow.lift()

    def _noting(self, layer: Any) -> Callable[..., Any]:
        call: Callable[..., Any] = layer.call

        @functools.wraps(call)
        def noting(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            if self._losses.is_listening:
                self._note(self._watch.name_of_layer(layer), outputs)
            return outputs

        return noting

    def _note(self, path: str, outputs: Any) -> None:
        tensors = [one for one in tf.nest.flatten(outputs) if tf.is_tensor(one) and one.dtype.is_floating]
        is_due = tf.equal(tf.math.floormod(self._optimizer._iterations.value, self._every), 0)
        for place, tensor in enumerate(tensors):
            self._watch.tensor_if(f"{path}[{place}]" if place else path, tensor, is_due=is_due)
