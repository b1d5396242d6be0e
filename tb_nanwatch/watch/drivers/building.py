"""Building an optimizer before its update is traced: that may be in a branch, which can make no slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.drivers.strategy import built_together, is_spread, replica_context
from tb_nanwatch.watch.graphs import creation_scopes
from tb_nanwatch.watch.guard.trace import BeginAgain


def build(optimizer: Any, variables: Sequence[Any], *, can_begin_again: Callable[[], bool]) -> None:
    """Build an optimizer as its own first update would.

    What Python reads of an optimizer that is not built stays in the trace as a constant. So the trace in which it is
    built must not be the one that runs. Its variables are made as those of the step itself: TensorFlow then traces the
    step anew, as it does without a watch. On several devices TensorFlow cannot make them so.

    Args:
        optimizer: of Keras. Any other builds itself, and so does one whose ``apply`` is not Keras' own.
        variables: that it updates.
        can_begin_again: whether the trace that is going on can be given up for another one.

    Raises:
        BeginAgain: if the step has to be traced anew.
        SetupError: if it has to be, and cannot.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer) or optimizer.built or not _builds_in_apply(optimizer):
        return
    context = replica_context()
    if context is None or not is_spread(context.strategy):
        with _made_where_possible(), keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(list(variables))
        return
    is_traced = not tf.executing_eagerly()
    is_given_up = is_traced and can_begin_again()
    if is_traced and not is_given_up:
        raise SetupError(
            f"an optimizer must be built before a step on several devices is traced; {optimizer.name!r} is not:"
            " call optimizer.build(variables) in strategy.scope()"
        )
    built_together(context, lambda: optimizer.build(list(variables)))
    if is_given_up:
        raise BeginAgain


def _builds_in_apply(optimizer: keras.optimizers.Optimizer) -> bool:
    return type(optimizer).apply in (keras.optimizers.Optimizer.apply, keras.optimizers.LossScaleOptimizer.apply)


@contextmanager
def _made_where_possible() -> Iterator[None]:
    """Make variables in the function that is traced; where it is none of TensorFlow's, which could, outside of it."""
    if tf.executing_eagerly() or creation_scopes(tf.compat.v1.get_default_graph()):
        yield
        return
    with tf.init_scope():
        yield
