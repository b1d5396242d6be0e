"""The decorator: a training step whose bad steps are caught between the call and its caller."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.guard.trace import BeginAgain
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.tf_internals import converted

_T = TypeVar("_T")


class StepListener(Protocol):
    """What a step function tells its watch."""

    def run(self, step: Callable[[], _T], call: Call | None) -> _T:
        """Run a step, and raise if it was bad and the policy says so; the step's own errors pass."""

    def step_begins(self, graph: Any, *, can_begin_again: bool) -> None:
        """Called when the whole function is about to be traced into ``graph``.

        Args:
            graph: of the trace.
            can_begin_again: whether the caller traces anew where the trace raises ``BeginAgain``.
        """

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

        Raises:
            SetupError: if options are given for a ``tf.function``, which has its own.
        """
        if tf_function_options and _is_tf_function(function):
            given = ", ".join(tf_function_options)
            raise SetupError(f"a tf.function must be given its options where it is made; got {given} with Watch.step")
        self._listener = listener
        self._instance: object = None
        self._steps: dict[str, StepFunction] = {}
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
            return self._traced_and_run(args, kwargs)
        return self._listener.run(lambda: self._traced_and_run(args, kwargs), self.call(args, kwargs))

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Return a call of this step, not made."""
        return Call(self._python, args, kwargs, self._is_converted)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, as a method does; each instance has a step, and so a graph, of its own."""
        if instance is None:
            return self
        # With the instance, so that both go together; one with __slots__ has no room, and stays as long as the watch.
        steps: dict[Any, Any] = getattr(instance, "__dict__", self._steps)
        name = f"_nanwatch_step_{self._python.__name__}_{id(self)}_{id(instance)}"
        # A copy of an instance has the steps of the original, whose id it may have when that is gone.
        if name not in steps or steps[name]._instance is not instance:
            steps[name] = StepFunction(self._bound_to(instance), self._listener, **self._options)
            steps[name]._instance = instance
        return steps[name]

    def __deepcopy__(self, memo: dict[int, Any]) -> StepFunction:
        """Return the step itself: a copy of an object keeps its functions."""
        return self

    def _traced_and_run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            return self._run(*args, **kwargs)
        except BeginAgain:
            # A tf.function whose first trace failed must not be asked again: it may then do nothing at all.
            self._run = self._compiled()
            return self._traced_and_run(args, kwargs)

    def _bound_to(self, instance: object) -> Callable[..., Any]:
        bind: Callable[[object, type], Callable[..., Any]] = self._function.__get__
        return bind(instance, type(instance))

    def _compiled(self) -> Callable[..., Any]:
        step = converted(self._python, is_converted=self._is_converted)

        # With the user's own signature, TensorFlow tells arguments apart as it would without the watch.
        @tf.autograph.experimental.do_not_convert
        @functools.wraps(self._python)
        def traced(*args: Any, **kwargs: Any) -> Any:
            if tf.executing_eagerly():
                return self._python(*args, **kwargs)
            self._listener.step_begins(tf.compat.v1.get_default_graph(), can_begin_again=True)
            result = step(*args, **kwargs)
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
