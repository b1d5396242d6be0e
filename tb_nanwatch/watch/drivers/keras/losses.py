"""What a ``train_step`` differentiates, from the tape to the update: no argument carries the loss there."""

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
_current: ContextVar[_Heard | None] = ContextVar("nanwatch_losses", default=None)
_listeners = 0
_unpatched = tf.GradientTape.gradient


class _Noted(NamedTuple):
    """A gradient that was taken: of what, and the handles of the variables it was taken with respect to."""

    target: tf.Tensor
    handles: frozenset[int]


class _Heard:
    """What was heard of one step; each replica of a step has its own."""

    def __init__(self, owner: NotedLosses) -> None:
        self.owner = owner
        self.noted: list[_Noted] = []
        self.unscaled: list[tuple[Any, Any]] = []
        self.has_updated = False

    def note(self, target: Any, sources: Any) -> None:
        targets = [one for one in tf.nest.flatten(target) if tf.is_tensor(one) and one.dtype.is_floating]
        handles = frozenset(id(handle_of(one)) for one in tf.nest.flatten(sources) if hasattr(one, "handle"))
        # A penalty on the gradient of an input differentiates what is no loss.
        if targets and handles:
            self.noted.append(_Noted(_sum_of([self._as_computed(one) for one in targets]), handles))

    def _as_computed(self, target: tf.Tensor) -> tf.Tensor:
        return next((loss for scaled, loss in self.unscaled if scaled is target), target)


class NotedLosses:
    """What a training step has differentiated and not yet used for an update."""

    @property
    def is_listening(self) -> bool:
        """Whether a watched step is being run or traced in this thread."""
        return self._heard() is not None

    @property
    def has_updated(self) -> bool:
        """Whether the step that is being run or traced had an update that is watched."""
        heard = self._heard()
        return heard is not None and heard.has_updated

    def scaled(self, loss: Any, scaled: Any) -> None:
        """Note what an optimizer made of a loss before the gradient was taken."""
        heard = self._heard()
        if heard is not None and scaled is not loss:
            heard.unscaled.append((scaled, loss))

    def take(self, variables: Sequence[Any]) -> tf.Tensor | None:
        """Return the loss of the update that comes now; ``None`` where none is known.

        Args:
            variables: that are updated, of Keras or TensorFlow.
        """
        heard = self._heard()
        if heard is None:
            return None
        heard.has_updated = True
        updated = {id(handle_of(variable)) for variable in variables}
        for place, noted in reversed([*enumerate(heard.noted)]):
            if noted.handles & updated and _is_at_hand(noted.target):
                return heard.noted.pop(place).target
        return None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of every gradient that a step takes in this thread."""
        token = _current.set(_Heard(self))
        _count_listeners(1)
        try:
            yield
        finally:
            _count_listeners(-1)
            _current.reset(token)

    def _heard(self) -> _Heard | None:
        heard = _current.get()
        return heard if heard is not None and heard.owner is self else None


def _sum_of(losses: Sequence[tf.Tensor]) -> tf.Tensor:
    return losses[0] if len(losses) == 1 else tf.add_n([tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in losses])


def _is_at_hand(loss: tf.Tensor) -> bool:
    if not tf.is_symbolic_tensor(loss):
        return True
    return any(loss.graph is one for one in with_enclosing(tf.compat.v1.get_default_graph()))


def _count_listeners(more: int) -> None:
    global _listeners  # noqa: PLW0603 - the one class that every tape is of
    with _lock:
        _listeners += more
        tf.GradientTape.gradient = _noting_gradient if _listeners else _unpatched


def _noting_gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
    heard = _current.get()
    if heard is not None:
        heard.note(target, sources)
    return _unpatched(tape, target, sources, *args, **kwargs)
