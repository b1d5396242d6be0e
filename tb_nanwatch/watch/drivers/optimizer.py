"""An optimizer's side of a step: how it is called and built, its loss scale, and its learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import keras
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.drivers.strategy import built_together, is_spread, replica_context
from tb_nanwatch.watch.graphs import creation_scopes
from tb_nanwatch.watch.guard.trace import BeginAgain
from tb_nanwatch.watch.tf_internals import loss_scale_object

_ASKED: Final = "_get_current_learning_rate"
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class UpdateMethod(NamedTuple):
    """The method of an optimizer that updates variables.

    Attributes:
        call: the method, bound.
        takes_lists: whether it takes gradients and variables as two lists, and not as pairs.
    """

    call: Callable[..., Any]
    takes_lists: bool

    @classmethod
    def of(cls, optimizer: Any) -> UpdateMethod:
        """Return an optimizer's ``apply_gradients``, as in TensorFlow and Keras, or its ``apply``.

        An optimizer that the user wrote may take two lists in either.

        Raises:
            SetupError: if it has no such method, or the method needs more than that.
        """
        method = getattr(optimizer, "apply_gradients", None)
        if not callable(method):
            method = getattr(optimizer, "apply", None)
            if not callable(method):
                raise SetupError(
                    "an optimizer must have apply_gradients(pairs), apply_gradients(gradients, variables) or"
                    f" apply(gradients, variables); got a {type(optimizer).__name__}, which has neither method"
                )
            return cls(method, takes_lists=True)
        needed = _needed(method)
        if len(needed) > 2:
            raise SetupError(
                "apply_gradients of an optimizer must take pairs, or gradients and variables;"
                f" that of {type(optimizer).__name__} needs {', '.join(needed)}"
            )
        return cls(method, takes_lists=len(needed) == 2)

    def __call__(self, pairs: Sequence[tuple[Any, Any]], **extra: Any) -> Any:
        """Apply pairs of gradient and variable."""
        if not self.takes_lists:
            return self.call(pairs, **extra)
        return self.call([gradient for gradient, _ in pairs], [variable for _, variable in pairs], **extra)


def build(optimizer: Any, variables: Sequence[Any], *, can_begin_again: Callable[[], bool]) -> None:
    """Build an optimizer as its own first update would; the guard's branch, where the update is traced, cannot.

    Python reads values of an optimizer that is not built, and they stay in the trace as constants. So the trace that
    builds it must not be the one that runs. The step makes the optimizer's variables like its own: TensorFlow then
    traces the step again, as it does without a watch. On several devices TensorFlow cannot make them so.

    Args:
        optimizer: of Keras. Any other builds itself, and so does one whose ``apply`` is not Keras' own.
        variables: that it updates.
        can_begin_again: returns whether the current trace can be given up for another one.

    Raises:
        BeginAgain: if the step must be traced again.
        SetupError: if it must be, and cannot.
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


@contextmanager
def known_rate(optimizer: Any) -> Iterator[Sequence[tf.Tensor]]:
    """Ask an optimizer of Keras for the learning rate of the eager update that runs next: it has no graph to search.

    The update gets the same answer, so that a schedule is asked as often as without a watch.

    Args:
        optimizer: of any kind.

    Yields:
        The rate, a floating scalar; nothing in a traced step, for another kind of optimizer, and if not every step
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


def loss_scale_of(optimizer: Any) -> tf.Tensor | None:
    """Return the factor by which an optimizer scales the loss; ``None`` unless the optimizer changes it by itself.

    Such an optimizer (``keras.optimizers.LossScaleOptimizer``) leaves out an update whose gradients overflowed, and
    lowers the scale. With a constant factor, an overflow of the gradients is an error of the training.

    Args:
        optimizer: built.
    """
    scale = getattr(optimizer, "dynamic_scale", None)
    if scale is None or not hasattr(optimizer, "inner_optimizer"):
        return None
    return tf.convert_to_tensor(scale)


def session_loss_scale_of(optimizer: Any) -> tf.Tensor | None:
    """Return the factor by which an optimizer of TensorFlow 1 scales the loss; ``None`` unless it changes by itself.

    ``tf.compat.v1.mixed_precision.MixedPrecisionLossScaleOptimizer`` returns gradients without the factor.

    Args:
        optimizer: after a call of its ``compute_gradients``.
    """
    scale = loss_scale_object(optimizer)
    is_dynamic = isinstance(scale, tf.compat.v1.mixed_precision.DynamicLossScale)
    return tf.convert_to_tensor(scale()) if is_dynamic else None


def _needed(method: Callable[..., Any]) -> list[str]:
    """Return the names of a method's required arguments; none if it has no signature."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    return [given.name for given in parameters if given.kind in _POSITIONAL and given.default is given.empty]


def _builds_in_apply(optimizer: keras.optimizers.Optimizer) -> bool:
    return type(optimizer).apply in (keras.optimizers.Optimizer.apply, keras.optimizers.LossScaleOptimizer.apply)


@contextmanager
def _made_where_possible() -> Iterator[None]:
    """Make variables in the traced function, or outside of it if the function is not TensorFlow's and makes none."""
    if tf.executing_eagerly() or creation_scopes(tf.compat.v1.get_default_graph()):
        yield
        return
    with tf.init_scope():
        yield
