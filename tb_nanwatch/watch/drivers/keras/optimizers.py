"""The optimizers of a model: found among its attributes, and measured as each will clip its gradients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import keras
import tensorflow as tf

from tb_nanwatch.watch.drivers.keras.losses import NotedLosses
from tb_nanwatch.watch.drivers.optimizer import known_rate, loss_scale_of
from tb_nanwatch.watch.drivers.steps import Steps
from tb_nanwatch.watch.row.inputs import StepInputs, floating
from tb_nanwatch.watch.tf_internals import clipped_by, clipping_off, layers_inside, trainable_variables_of

_Update = Callable[[Sequence[tuple[Any, Any]]], Any]
_NONE: Final = object()


class Shadow:
    """Attributes that hide an object's own until they are lifted. The object's tracking does not see them."""

    def __init__(self, hidden: Any, attributes: Mapping[str, Any]) -> None:
        """Set the attributes.

        Args:
            hidden: the object.
            attributes: by name.
        """
        self._attributes: dict[str, Any] = vars(hidden)
        self._before = {name: self._attributes.get(name, _NONE) for name in attributes}
        self._attributes.update(attributes)

    @property
    def is_lifted(self) -> bool:
        """Whether the object is as it was."""
        return not self._before

    def lift(self) -> None:
        """Restore the object's own attributes; a second call does nothing."""
        before, self._before = self._before, {}
        for name, value in before.items():
            if value is _NONE:
                self._attributes.pop(name, None)
            else:
                self._attributes[name] = value


@dataclass(frozen=True)
class Optimizers:
    """The optimizers that a model and its layers hold.

    Attributes:
        watched: those of Keras, each once; without those inside another one.
        foreign: names of the types of those that only look like an optimizer.
        microbatches: how many steps in a row Keras adds up for one update.
    """

    watched: Sequence[Any]
    foreign: Sequence[str]
    microbatches: int

    @classmethod
    def of(cls, model: Any) -> Optimizers:
        """Find them among the attributes of a model and of its layers, and in lists and dictionaries there."""
        holders = [model, *layers_inside(model)]
        held = [value for holder in holders for attribute in vars(holder).values() for value in _values(attribute)]
        found = {id(value): value for value in held if isinstance(value, keras.optimizers.Optimizer)}
        inside = {id(value.inner_optimizer) for value in found.values() if hasattr(value, "inner_optimizer")}
        alike = {type(value).__name__ for value in held if id(value) not in found and _looks_like_optimizer(value)}
        watched = [value for value in found.values() if id(value) not in inside]
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        return cls(watched, sorted(alike), getattr(inner, "gradient_accumulation_steps", None) or 1)


class WatchedOptimizer:
    """An optimizer whose instance's ``apply`` goes through a watch until it is restored."""

    def __init__(self, optimizer: Any, losses: NotedLosses, steps: Steps) -> None:
        """Wrap the instance.

        Args:
            optimizer: of Keras.
            losses: of the step.
            steps: the driver that guards the update.
        """
        self._optimizer, self._losses, self._steps = optimizer, losses, steps
        self._apply: Callable[..., Any] = optimizer.apply
        self._scale_loss: Callable[[Any], Any] = optimizer.scale_loss
        # TensorFlow traces the replicas of a step in a thread each.
        self._updating = threading.local()
        self._shadow = Shadow(optimizer, {"apply": self.apply, "scale_loss": self.scale_loss})

    def restore(self) -> None:
        """Leave the optimizer as it was."""
        self._shadow.lift()

    @tf.autograph.experimental.do_not_convert
    def scale_loss(self, loss: Any) -> Any:
        """Have the optimizer scale a loss, and note that the result stands for the loss."""
        scaled = self._scale_loss(loss)
        self._losses.note_scaled(loss, scaled)
        return scaled

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Measure the gradients, and apply them if the guard lets it."""
        optimizer, gradients = self._optimizer, list(grads)
        given = None if trainable_variables is None else list(trainable_variables)
        is_ours = self._losses.is_listening and not getattr(self._updating, "is_on", False)
        if not is_ours or not any(gradient is not None for gradient in gradients):
            return self._apply(gradients, given)
        variables = trainable_variables_of(optimizer) if given is None else given
        self._steps.prepare(optimizer, variables)
        loss = self._losses.take(variables)
        scale = loss_scale_of(optimizer)
        factor = scale if scale is not None else _fixed_factor(optimizer)
        inputs = StepInputs(
            list(zip(gradients, variables, strict=True)),
            raw=None,
            loss=None if loss is None else floating(loss),
            step=None,
            scale=scale,
        )
        clips = _clipping(optimizer)
        if clips is None and factor is None:
            return self._through_watch(inputs, lambda pairs: self._update(gradients, variables))
        unscaled = gradients if factor is None else [_over(gradient, factor) for gradient in gradients]
        clipped = unscaled if clips is None else _clipped(clips, unscaled)
        pairs = list(zip(clipped, variables, strict=True))
        inputs = inputs._replace(pairs=pairs, raw=None if clips is None else unscaled, is_unscaled=True)
        if factor is not None:
            return self._through_watch(inputs, lambda _: self._update(gradients, variables))
        return self._through_watch(inputs, lambda _: self._update(clipped, variables, clips=clips))

    def _through_watch(self, inputs: StepInputs, update: _Update) -> Any:
        with known_rate(self._optimizer) as scalars:
            return self._steps.apply(inputs._replace(scalars=scalars), update)

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any], *, clips: Any = None) -> Any:
        self._updating.is_on = True
        try:
            with nullcontext() if clips is None else clipping_off(clips):
                return self._apply(gradients, variables)
        finally:
            self._updating.is_on = False


def _values(attribute: Any) -> Iterator[Any]:
    if isinstance(attribute, Mapping):
        yield from attribute.values()
    elif isinstance(attribute, list | tuple):
        yield from attribute
    else:
        yield attribute


def _looks_like_optimizer(value: Any) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "apply_gradients", None))


def _clipping(optimizer: Any) -> Any:
    """Return the optimizer that clips, itself or the one inside it; ``None`` if not every step is clipped."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    chosen = (getattr(inner, name, None) for name in ("clipnorm", "global_clipnorm", "clipvalue"))
    # Where Keras adds up the gradients of several steps, it clips the sum in the last of them.
    return inner if any(chosen) and not getattr(inner, "gradient_accumulation_steps", None) else None


def _fixed_factor(optimizer: Any) -> Any:
    return getattr(optimizer, "loss_scale_factor", None)


def _over(gradient: Any, factor: Any) -> Any:
    if gradient is None:
        return None
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    unscaled = values / tf.cast(factor, values.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(unscaled, gradient.indices, gradient.dense_shape)
    return unscaled


def _clipped(optimizer: Any, gradients: Sequence[Any]) -> list[Any]:
    clipped = iter(clipped_by(optimizer, [gradient for gradient in gradients if gradient is not None]))
    return [None if gradient is None else next(clipped) for gradient in gradients]
