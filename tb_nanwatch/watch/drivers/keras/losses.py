"""What a ``train_step`` differentiates: no argument carries the loss from the tape to the update."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import tensorflow as tf

from tb_nanwatch.watch.graphs import with_enclosing
from tb_nanwatch.watch.variables import handle_of

_lock = threading.Lock()
_current: ContextVar[_Step | None] = ContextVar("nanwatch_losses", default=None)
_listeners = 0
_unpatched = tf.GradientTape.gradient


class _Gradient(NamedTuple):
    """A gradient that a tape took: the loss, and the handles of the variables that it was taken with respect to."""

    loss: tf.Tensor
    handles: frozenset[int]


class _Step:
    """The gradients that one step took; each replica of a step has its own."""

    def __init__(self, owner: NotedLosses) -> None:
        self.owner = owner
        self.gradients: list[_Gradient] = []
        self.unscaled: list[tuple[Any, Any]] = []
        self.has_updated = False

    def note(self, target: Any, sources: Any) -> None:
        losses = [loss for loss in tf.nest.flatten(target) if tf.is_tensor(loss) and loss.dtype.is_floating]
        handles = frozenset(id(handle_of(source)) for source in tf.nest.flatten(sources) if hasattr(source, "handle"))
        # A penalty on the gradient of an input differentiates something else than the loss.
        if losses and handles:
            self.gradients.append(_Gradient(_sum_of([self._as_computed(loss) for loss in losses]), handles))

    def _as_computed(self, target: tf.Tensor) -> tf.Tensor:
        return next((loss for scaled, loss in self.unscaled if scaled is target), target)


class NotedLosses:
    """The losses that a training step has differentiated and not used for an update yet."""

    @property
    def is_listening(self) -> bool:
        """Whether a watched step is being run or traced in this thread."""
        return self._step() is not None

    @property
    def has_updated(self) -> bool:
        """Whether the step that is being run or traced had an update that is watched."""
        step = self._step()
        return step is not None and step.has_updated

    def note_scaled(self, loss: Any, scaled: Any) -> None:
        """Note that an optimizer scaled a loss before the tape took the gradient."""
        step = self._step()
        if step is not None and scaled is not loss:
            step.unscaled.append((scaled, loss))

    def take(self, variables: Sequence[Any]) -> tf.Tensor | None:
        """Return the loss of the update that comes now; ``None`` if it is unknown.

        Args:
            variables: that the update changes, of Keras or TensorFlow.
        """
        step = self._step()
        if step is None:
            return None
        step.has_updated = True
        updated = {id(handle_of(variable)) for variable in variables}
        for place, gradient in reversed([*enumerate(step.gradients)]):
            if gradient.handles & updated and _is_in_reach(gradient.loss):
                return step.gradients.pop(place).loss
        return None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note every gradient that a step takes in this thread."""
        token = _current.set(_Step(self))
        _count_listeners(1)
        try:
            yield
        finally:
            _count_listeners(-1)
            _current.reset(token)

    def _step(self) -> _Step | None:
        step = _current.get()
        return step if step is not None and step.owner is self else None


def _sum_of(losses: Sequence[tf.Tensor]) -> tf.Tensor:
    return losses[0] if len(losses) == 1 else tf.add_n([tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in losses])


def _is_in_reach(loss: tf.Tensor) -> bool:
    if not tf.is_symbolic_tensor(loss):
        return True
    return any(loss.graph is graph for graph in with_enclosing(tf.compat.v1.get_default_graph()))


def _count_listeners(more: int) -> None:
    global _listeners  # noqa: PLW0603 - every tape is of the one class that is patched
    with _lock:
        _listeners += more
        tf.GradientTape.gradient = _noting_gradient if _listeners else _unpatched


def _noting_gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
    step = _current.get()
    if step is not None:
        step.note(target, sources)
    return _unpatched(tape, target, sources, *args, **kwargs)
