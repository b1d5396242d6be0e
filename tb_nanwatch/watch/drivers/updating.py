"""How an optimizer is called: with pairs of gradient and variable, or with two lists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from tb_nanwatch.errors import SetupError

_WITHOUT_DEFAULT: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class UpdateMethod(NamedTuple):
    """The method of an optimizer that updates.

    Attributes:
        call: the method, bound.
        takes_lists: whether it takes gradients and variables as two lists, and not as pairs.
    """

    call: Callable[..., Any]
    takes_lists: bool

    @classmethod
    def of(cls, optimizer: Any) -> UpdateMethod:
        """Return ``apply_gradients``, as optimizers of TensorFlow and Keras have it, or ``apply``.

        An optimizer that is written by hand may take two lists in either.

        Raises:
            SetupError: if there is no such method, or it needs more than that.
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
        """Update as the pairs say."""
        if not self.takes_lists:
            return self.call(pairs, **extra)
        return self.call([gradient for gradient, _ in pairs], [variable for _, variable in pairs], **extra)


def _needed(method: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a method cannot do without; of one that does not say, none."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    return [one.name for one in parameters if one.kind in _WITHOUT_DEFAULT and one.default is one.empty]
