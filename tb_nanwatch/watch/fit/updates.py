"""The optimizer's side: what ``optimizer.apply`` is given, measured as the optimizer will clip it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tb_nanwatch.watch.fit.losses import NotedLosses
from tb_nanwatch.watch.inputs import StepInputs, floating, loss_scale_of

Guarded = Callable[[StepInputs, Callable[[Sequence[tuple[Any, Any]]], Any]], Any]


class WatchedOptimizer:
    """An optimizer whose instance's ``apply`` goes through a watch, until it is put back."""

    def __init__(self, optimizer: Any, guarded: Guarded, losses: NotedLosses) -> None:
        """Wrap the instance.

        Args:
            optimizer: of Keras.
            guarded: runs an update if the watch lets it.
            losses: of the step.
        """
        self._optimizer, self._guarded, self._losses = optimizer, guarded, losses
        self._apply: Callable[..., Any] = optimizer.apply
        self._is_inside = False
        optimizer.apply = self.apply

    def put_back(self) -> None:
        """Leave the optimizer as it was."""
        # The wrapper shadows the method of the class.
        self._optimizer.__dict__.pop("apply", None)

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Measure the gradients and, if the policy lets it, apply them."""
        optimizer, gradients = self._optimizer, list(grads)
        variables = list(optimizer._trainable_variables if trainable_variables is None else trainable_variables)
        if self._is_inside or not any(gradient is not None for gradient in gradients):
            return self._apply(grads, trainable_variables)
        scale = loss_scale_of(optimizer)
        loss = self._losses.take(scale)
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
            return self._guarded(inputs, lambda pairs: self._update(gradients, variables))
        unscaled = gradients if factor is None else [_over(gradient, factor) for gradient in gradients]
        clipped = unscaled if clips is None else _clipped(clips, unscaled)
        pairs = list(zip(clipped, variables, strict=True))
        inputs = inputs._replace(pairs=pairs, raw=None if clips is None else unscaled, is_unscaled=True)
        if factor is not None:
            return self._guarded(inputs, lambda _: self._update(gradients, variables))
        with_clipped = lambda _: self._update(clipped, variables, clips=clips)  # noqa: E731 - one of three alike
        return self._guarded(inputs, with_clipped)

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any], *, clips: Any = None) -> Any:
        self._is_inside = True
        try:
            with _clipping_done(clips):
                return self._apply(gradients, variables)
        finally:
            self._is_inside = False


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
        del optimizer._clip_gradients
