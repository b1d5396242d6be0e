"""The learning rate of an eager step, known before its update runs: there is no graph to find it in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import tensorflow as tf

_ASKED: Final = "_get_current_learning_rate"


@contextmanager
def rate_known(optimizer: Any) -> Iterator[Sequence[tf.Tensor]]:
    """Ask an optimizer of Keras for the learning rate of the eager update that is about to run.

    The update is handed the same answer, so that a schedule is asked as often as without a watch.

    Args:
        optimizer: of any kind.

    Yields:
        The rate, floating scalar; nothing in a traced step, of another kind of optimizer, and where not every step
        updates.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    ask = getattr(inner, _ASKED, None)
    if ask is None or not tf.executing_eagerly() or getattr(inner, "gradient_accumulation_steps", None):
        yield ()
        return
    rate = ask()

    def answer() -> Any:
        vars(inner).pop(_ASKED, None)
        return rate

    vars(inner)[_ASKED] = answer
    try:
        value = tf.convert_to_tensor(rate)
        yield [value] if value.dtype.is_floating and value.shape.rank == 0 else ()
    finally:
        vars(inner).pop(_ASKED, None)
