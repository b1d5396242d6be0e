"""The optimizer's side: what ``optimizer.apply`` is given, measured as the optimizer will clip it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tb_nanwatch.watch.drivers.keras.losses import NotedLosses
from tb_nanwatch.watch.drivers.keras.shadow import Shadow
from tb_nanwatch.watch.row.inputs import StepInputs, floating, loss_scale_of
from tb_nanwatch.watch.row.rates import rate_known

Prepare = Callable[[Any, Sequence[Any]], None]
Guarded = Callable[[StepInputs, Callable[[Sequence[tuple[Any, Any]]], Any]], Any]


class WatchedOptimizer:
    """An optimizer whose instance's ``apply`` goes through a watch, until it is put back."""

    def __init__(self, optimizer: Any, losses: NotedLosses, *, prepare: Prepare, guarded: Guarded) -> None:
        """Wrap the instance.

        Args:
            optimizer: of Keras.
            losses: of the step.
            prepare: builds an optimizer for the variables that it updates.
            guarded: runs an update if the watch lets it.
        """
        self._optimizer, self._losses = optimizer, losses
        self._prepare, self._guarded = prepare, guarded
        self._apply: Callable[..., Any] = optimizer.apply
        self._scale_loss: Callable[[Any], Any] = optimizer.scale_loss
        # Replicas of a step are traced in threads of their own.
        self._updating = threading.local()
        self._shadow = Shadow(optimizer, {"apply": self.apply, "scale_loss": self.scale_loss})

    def put_back(self) -> None:
        """Leave the optimizer as it was."""
        self._shadow.lift()

    @tf.autograph.experimental.do_not_convert
    def scale_loss(self, loss: Any) -> Any:
        """Have the optimizer scale a loss, and know the two for the same."""
        scaled = self._scale_loss(loss)
        self._losses.scaled(loss, scaled)
        return scaled

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Measure the gradients and, if the policy lets it, apply them."""
        optimizer, gradients = self._optimizer, list(grads)
        given = None if trainable_variables is None else list(trainable_variables)
        is_ours = self._losses.is_listening and not getattr(self._updating, "is_on", False)
        if not is_ours or not any(gradient is not None for gradient in gradients):
            return self._apply(gradients, given)
        variables = list(optimizer._trainable_variables) if given is None else given
        self._prepare(optimizer, variables)
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
        with_clipped = lambda _: self._update(clipped, variables, clips=clips)  # noqa: E731 - one of three alike
        return self._through_watch(inputs, with_clipped)

    def _through_watch(self, inputs: StepInputs, update: Callable[[Sequence[tuple[Any, Any]]], Any]) -> Any:
        with rate_known(self._optimizer) as scalars:
            return self._guarded(inputs._replace(scalars=scalars), update)

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any], *, clips: Any = None) -> Any:
        self._updating.is_on = True
        try:
            with _clipping_done(clips):
                return self._apply(gradients, variables)
        finally:
            self._updating.is_on = False


def _clipping(optimizer: Any) -> Any:
    """Return the optimizer that clips, itself or the one inside it; ``None`` where nothing is clipped in each step."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    chosen = (getattr(inner, name, None) for name in ("clipnorm", "global_clipnorm", "clipvalue"))
    # Of gradients that Keras adds up it clips the sum, in the last step of several.
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
    clipped = iter(optimizer._clip_gradients([gradient for gradient in gradients if gradient is not None]))
    return [None if gradient is None else next(clipped) for gradient in gradients]


@contextmanager
def _clipping_done(optimizer: Any) -> Iterator[None]:
    if optimizer is None:
        yield
        return
    optimizer._clip_gradients = lambda gradients: gradients
    try:
        yield
    finally:
        # Of several replicas, which all have clipped by now, the first takes it away.
        vars(optimizer).pop("_clip_gradients", None)
