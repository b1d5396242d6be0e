"""The decorator: a training step whose bad steps are caught between the call and its caller."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import tensorflow as tf

from tb_nanwatch.watch.batch import Call

_T = TypeVar("_T")


class StepListener(Protocol):
    """What a step function tells its watch."""

    def run(self, step: Callable[[], _T], call: Call | None) -> _T:
        """Run a step, and raise if it was bad and the policy says so; the step's own errors pass."""

    def step_traced(self, graph: Any) -> None:
        """Called when the whole function was traced into ``graph``."""


class StepFunction:
    """A training step as ``Watch.step`` returns it: called like the function it wraps, and a method like it, too."""

    def __init__(self, function: Callable[..., Any], listener: StepListener, **tf_function_options: Any) -> None:
        """Wrap a Python function, or a ``tf.function`` as it is.

        Args:
            function: the training step.
            listener: the watch.
            **tf_function_options: passed on to ``tf.function``.
        """
        self._listener = listener
        self._options = tf_function_options
        self._function: Any = function
        self._python: Callable[..., Any] = getattr(function, "python_function", function)
        self._is_converted = _is_converted(function, tf_function_options)
        self._run = self._compiled()
        functools.update_wrapper(self, self._python)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step.

        Raises:
            NonFiniteError: if the step was bad and the policy is ``"raise"``.
        """
        if not tf.executing_eagerly():
            # Part of a larger graph: whoever runs that checks with Watch.after_step.
            return self._run(*args, **kwargs)
        return self._listener.run(lambda: self._run(*args, **kwargs), self.call(args, kwargs))

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Return a call of this step, not made."""
        return Call(self._python, args, kwargs, self._is_converted)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, as a method does; each instance has a step, and so a graph, of its own."""
        if instance is None:
            return self
        name = f"_nanwatch_step_{self._python.__name__}_{id(self)}"
        if name not in vars(instance):
            vars(instance)[name] = StepFunction(self._bound_to(instance), self._listener, **self._options)
        return vars(instance)[name]

    def _bound_to(self, instance: object) -> Callable[..., Any]:
        bind: Callable[[object, type], Callable[..., Any]] = self._function.__get__
        return bind(instance, type(instance))

    def _compiled(self) -> Callable[..., Any]:
        # With the user's own signature, TensorFlow tells arguments apart as it would without the watch.
        @functools.wraps(self._python)
        def traced(*args: Any, **kwargs: Any) -> Any:
            result = self._python(*args, **kwargs)
            if not tf.executing_eagerly():
                self._listener.step_traced(tf.compat.v1.get_default_graph())
            return result

        if _is_tf_function(self._function):
            # Only its own copy keeps a tf.function's options while it compiles another Python function.
            copied: Callable[..., Any] = self._function._clone(traced)
            return copied
        compiled: Callable[..., Any] = tf.function(traced, **self._options)
        return compiled


def _is_converted(function: Any, options: Mapping[str, Any]) -> bool:
    return bool(function._autograph if _is_tf_function(function) else options.get("autograph", True))


def _is_tf_function(function: Callable[..., Any]) -> bool:
    return hasattr(function, "get_concrete_function")
