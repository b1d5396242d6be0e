"""The loss of a ``train_step``, from where it is computed to the update: no argument carries it there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

_lock = threading.Lock()
_listening: ContextVar[NotedLosses | None] = ContextVar("nanwatch_losses", default=None)
_listeners = 0
_unpatched = tf.GradientTape.gradient


class NotedLosses:
    """What a training step has differentiated, or computed as its loss, since its last update."""

    def __init__(self) -> None:
        """Begin with none."""
        self._computed: Any = None
        self._differentiated: Any = None

    def computed(self, loss: Any) -> None:
        """Note what ``compute_loss`` returned."""
        self._computed = loss

    def differentiated(self, target: Any) -> None:
        """Note what a gradient was taken of."""
        if isinstance(target, tf.Tensor) and target.dtype.is_floating:
            self._differentiated = target

    def take(self, scale: tf.Tensor | None) -> tf.Tensor | None:
        """Return the loss of the update that comes now; ``None`` where nothing was noted.

        Args:
            scale: by which the step multiplies its loss before it takes the gradient; ``None`` if it does not.
        """
        computed, target = self._computed, self._differentiated
        self._computed = self._differentiated = None
        if computed is not None:
            return tf.convert_to_tensor(computed)
        return target if target is None or scale is None else target / tf.cast(scale, target.dtype)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of every gradient that is taken in this thread."""
        token = _listening.set(self)
        _count_listeners(1)
        try:
            yield
        finally:
            _count_listeners(-1)
            _listening.reset(token)


def _count_listeners(more: int) -> None:
    global _listeners  # noqa: PLW0603 - the one class that every tape is of
    with _lock:
        _listeners += more
        tf.GradientTape.gradient = _noting_gradient if _listeners else _unpatched


def _noting_gradient(tape: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
    listener = _listening.get()
    if listener is not None:
        listener.differentiated(target)
    return _unpatched(tape, target, *args, **kwargs)
