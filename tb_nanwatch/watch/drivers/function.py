"""The decorator ``Watch.step``: a training step whose bad steps raise between the call and its caller."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.drivers.steps import Steps
from tb_nanwatch.watch.guard.trace import BeginAgain
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.tf_internals import converted, uses_autograph, with_python_function


class StepFunction:
    """A training step as ``Watch.step`` returns it: called like the function that it wraps, also as a method."""

    def __init__(self, function: Callable[..., Any], steps: Steps, **tf_function_options: Any) -> None:
        """Wrap a Python function, or a ``tf.function`` as it is.

        Args:
            function: the training step.
            steps: of the watch.
            **tf_function_options: passed on to ``tf.function``.

        Raises:
            SetupError: if a ``tf.function``, which has options of its own, is given others.
        """
        if tf_function_options and _is_tf_function(function):
            given = ", ".join(tf_function_options)
            raise SetupError(f"a tf.function must be given its options where it is made; got {given} with Watch.step")
        self._steps = steps
        self._instance: object = None
        self._bound: dict[str, StepFunction] = {}
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
            # Part of a larger graph: the code that runs it checks with Watch.after_step.
            return self._traced_and_run(args, kwargs)
        return self._steps.run(lambda: self._traced_and_run(args, kwargs), self.call(args, kwargs))

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Return a call of this step, without making it."""
        return Call(self._python, args, kwargs, self._is_converted)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, as a method does; each instance has its own step, and so its own graph."""
        if instance is None:
            return self
        # The instance holds its step, so that both go together. An instance with __slots__ has no room for it.
        bound: dict[Any, Any] = getattr(instance, "__dict__", self._bound)
        name = f"_nanwatch_step_{self._python.__name__}_{id(self)}_{id(instance)}"
        # A copy of an instance holds the steps of the original. It may get the original's id when that is gone.
        if name not in bound or bound[name]._instance is not instance:
            bound[name] = StepFunction(self._bound_to(instance), self._steps, **self._options)
            bound[name]._instance = instance
        return bound[name]

    def __deepcopy__(self, memo: dict[int, Any]) -> StepFunction:
        """Return the step itself: a copy of an object keeps its functions."""
        return self

    def _traced_and_run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            return self._run(*args, **kwargs)
        except BeginAgain:
            # A tf.function whose first trace failed must not be called again: it may then do nothing at all.
            self._run = self._compiled()
            return self._traced_and_run(args, kwargs)

    def _bound_to(self, instance: object) -> Callable[..., Any]:
        bind: Callable[[object, type], Callable[..., Any]] = self._function.__get__
        return bind(instance, type(instance))

    def _compiled(self) -> Callable[..., Any]:
        step = converted(self._python, is_converted=self._is_converted)

        # With the user's own signature, TensorFlow distinguishes arguments as it would without the watch.
        @tf.autograph.experimental.do_not_convert
        @functools.wraps(self._python)
        def traced(*args: Any, **kwargs: Any) -> Any:
            if tf.executing_eagerly():
                return self._python(*args, **kwargs)
            self._steps.begin_trace(tf.compat.v1.get_default_graph())
            result = step(*args, **kwargs)
            self._steps.finish_trace(tf.compat.v1.get_default_graph())
            self._steps.expect_update(getattr(self._python, "__name__", "the step"))
            return result

        if _is_tf_function(self._function):
            # Only a tf.function's own copy keeps its options while it compiles another Python function.
            return with_python_function(self._function, traced)
        compiled: Callable[..., Any] = tf.function(traced, **self._options)
        return compiled


def _is_converted(function: Any, options: Mapping[str, Any]) -> bool:
    return bool(uses_autograph(function) if _is_tf_function(function) else options.get("autograph", True))


def _is_tf_function(function: Callable[..., Any]) -> bool:
    return hasattr(function, "get_concrete_function")
