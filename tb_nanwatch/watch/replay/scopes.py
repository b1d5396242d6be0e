"""Which name scopes the user's program opened, itself or through layers.

The functions of TensorFlow open scopes too, which tell nobody where in a network he is. They do it by another class
than the public ones, so no name has to be guessed at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import tensorflow as tf

_OPENING: Final = (tf.name_scope, tf.compat.v1.name_scope, tf.compat.v1.variable_scope)


@contextmanager
def scopes_noted(scopes: set[str]) -> Iterator[None]:
    """Note the scopes that are opened in this thread meanwhile.

    There is one class for all threads: whoever calls this keeps others from doing so at once.

    Args:
        scopes: takes the name of each, with those around it.
    """
    thread = threading.get_ident()

    def noting(enter: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def entered(self: Any) -> Any:
            result = enter(self)
            if threading.get_ident() == thread and not tf.executing_eagerly():
                scopes.add(tf.compat.v1.get_default_graph().get_name_scope())
            return result

        return entered

    with ExitStack() as stack:
        for opening in _OPENING:
            stack.callback(setattr, opening, "__enter__", opening.__enter__)
            opening.__enter__ = noting(opening.__enter__)
        yield
