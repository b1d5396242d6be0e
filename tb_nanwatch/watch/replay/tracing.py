"""A step that is a Python function: traced anew, cut down to what is in question, run, and its writes undone."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.guard.state import restored_values
from tb_nanwatch.watch.replay.boundaries import FunctionBoundaries
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.instrument import Instrument
from tb_nanwatch.watch.replay.step_trace import CannotReplayError, check_repeatable
from tb_nanwatch.watch.replay.trial import Trial
from tb_nanwatch.watch.tf_internals import (
    FuncGraph,
    add_control_input,
    callable_function,
    converted,
    lift,
    polymorphic_function_type,
    trace_into,
)
from tb_nanwatch.watch.variables import writes

_SCOPES: Final = (tf.name_scope, tf.compat.v1.name_scope, tf.compat.v1.variable_scope)
"""The public classes that open a name scope. TensorFlow's own functions open theirs by another class."""
_patching: Final = threading.Lock()
_numbers: Final = itertools.count()


class DrawnOtherwiseError(Exception):
    """A trace draws in another order than the step did, so that it cannot get what the step drew."""


@dataclass(frozen=True, eq=False)
class TracedFunction:
    """A step as a graph that has not run.

    Attributes:
        trial: the trial that noted its updates.
        graph: the graph, with a placeholder for each array among the arguments and for all that it captures.
        instrument: what instrumented it.
        boundaries: between its graphs.
        extra: operations that have to run as well, for all operations to report.
        values: by the name of its placeholder, the value of each argument that is an array or a tensor.
        scopes: the name scopes that the program opened.
    """

    trial: Trial
    graph: Graph
    instrument: Instrument
    boundaries: FunctionBoundaries
    extra: Sequence[Op]
    values: Mapping[str, Tensor]
    scopes: Collection[str]

    @cached_property
    def flow(self) -> Flow:
        """The data flow between its operations."""
        return Flow(self.instrument.probe, self.boundaries)

    @cached_property
    def fed(self) -> Mapping[str, Tensor]:
        """The value or the handle behind each placeholder, by its name: the arguments and the captured tensors."""
        return {**self.values, **{inner.name: outer for outer, inner in self.graph.captures}}

    @cached_property
    def written_handles(self) -> Sequence[Tensor]:
        """The handles of the resources that it writes."""
        written = {placeholder.name for _, placeholder in writes(self.graph.get_operations())}
        return [self.fed[name] for name in sorted(written & self.fed.keys())]

    def run(self, sinks: Sequence[Tensor | Op], *, prepare: Callable[[Tensor], None] | None = None) -> None:
        """Run as much of the graph as some tensors and operations need, and restore every variable that it writes.

        Args:
            sinks: tensors and operations of its graphs.
            prepare: called with the handle of each variable that the graph writes, to set another value first.

        Raises:
            CannotReplayError: if it would take or give something that cannot be restored.
        """
        callers = [self.boundaries.called_from(sink.graph) for sink in sinks]
        targets = [sink if caller is None else caller for sink, caller in zip(sinks, callers, strict=True)]
        cut, sources = _cut_down(self.graph, [*targets, *self.extra])
        check_repeatable(cut.get_operations())
        function = callable_function(cut, name=f"nanwatch_trial_{next(_numbers)}")
        values = [self.fed[source.name] for source in sources]
        with restored_values(self.written_handles) as kept:
            if prepare is not None:
                for variable in kept:
                    prepare(variable.handle)
            function.call_flat(*values)


def trace(step: Callable[..., Any], leaves: Sequence[Any], *, trial: Trial, instrument: Instrument) -> TracedFunction:
    """Trace a step as a trial. Every operation reports, and XLA compiles none.

    Args:
        step: takes the leaves and calls the user's function; its result is not used.
        leaves: the tensors and arrays that the step takes as inputs.
        trial: notes what ``apply_gradients`` is given.
        instrument: not attached yet.

    Raises:
        CannotReplayError: if ``apply_gradients`` is not reached, or reached once for each of many steps in a call.
    """
    values = [tf.convert_to_tensor(leaf) for leaf in leaves]
    graph = FuncGraph("nanwatch_trial")
    scopes: set[str] = set()

    def traced(*inputs: Tensor) -> None:
        step(*inputs)

    with (
        trial.active(),
        instrument.attached(),
        _traced_inline(scopes),
        _generators_restored(),
        tf.summary.record_if(False),
    ):
        trace_into(graph, traced, values, name="nanwatch_trial")
    if not trial.step_updates:
        raise CannotReplayError("it did not reach watch.apply_gradients")
    if not instrument.feed.is_right(graph):
        raise DrawnOtherwiseError
    extra = instrument.instrument_the_rest(graph)
    boundaries = FunctionBoundaries(instrument.probe, graph)
    if boundaries.is_in_loop(trial.graph):
        raise CannotReplayError("it takes many steps in one call, and which batch was that of the bad one is not known")
    fed = {tensor.name: value for tensor, value in zip(graph.inputs, values, strict=False)}
    return TracedFunction(trial, graph, instrument, boundaries, extra, fed, scopes)


def _cut_down(graph: Graph, targets: Sequence[Any]) -> tuple[Graph, list[Tensor]]:
    """Return a graph with only what some tensors and operations depend on, and the original's inputs that it uses."""
    # Prints, writes and counts of the step that nothing in question depends on must not happen a second time.
    cut, copies = _lifted(graph, targets)
    debuggers = [op for op in graph.get_operations() if op.type == "DebugIdentityV2" and _debugged(op) in copies]
    if debuggers:
        # Nothing waits for what a debugger writes, but it is wanted too.
        cut, copies = _lifted(graph, [*targets, *debuggers])
        for earlier, later in itertools.pairwise(debuggers):
            add_control_input(copies[later], copies[earlier])
    sources = [tensor for tensor in graph.inputs if tensor in copies]
    cut.inputs = [copies[tensor] for tensor in sources]
    cut.outputs = [copies[target] for target in targets if isinstance(target, tf.Tensor)]
    ops = [target for target in targets if not isinstance(target, tf.Tensor)]
    # Several targets may come from the same call.
    cut.control_outputs = list({copies[op]: None for op in (*ops, *debuggers)})
    return cut, sources


def _lifted(graph: Graph, targets: Sequence[Any]) -> tuple[Graph, Mapping[Any, Any]]:
    """Return a graph with what some tensors and operations depend on, and the copy of each of these."""
    cut = FuncGraph("nanwatch_trial_cut")
    with cut.as_default():
        copies: Mapping[Any, Any] = lift(
            targets, cut, sources=list(graph.inputs), base_graph=graph, add_sources=True, handle_captures=False
        )
    return cut, copies


def _debugged(debugger: Op) -> Tensor:
    """Return the tensor that an operation of TensorFlow's debugger describes, or else the operation's input."""
    (summary,) = debugger.inputs
    return next(iter(summary.op.inputs), summary)


@contextmanager
def _traced_inline(scopes: set[str]) -> Iterator[None]:
    """Trace functions that the step calls as part of it, even if they are compiled already, or compiled by XLA.

    Args:
        scopes: receives the name scopes that the program opens.
    """
    # All threads share the patched classes. Of two replays at once, the second would restore the first one's patch.
    with _patching, _scopes_noted(scopes), _calls_inlined():
        yield


@contextmanager
def _calls_inlined() -> Iterator[None]:
    function_type = polymorphic_function_type()
    original = function_type.__call__
    thread = threading.get_ident()

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread or tf.executing_eagerly():
            return original(self, *args, **kwargs)
        return converted(self.python_function, is_converted=self._autograph)(*args, **kwargs)

    function_type.__call__ = call
    try:
        yield
    finally:
        function_type.__call__ = original


@contextmanager
def _scopes_noted(scopes: set[str]) -> Iterator[None]:
    """Note the name scopes that the program opens in this thread, itself or through layers.

    TensorFlow's functions open scopes too, and those do not tell the user where in the network an operation is.
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
        for scope in _SCOPES:
            stack.callback(setattr, scope, "__enter__", scope.__enter__)
            scope.__enter__ = noting(scope.__enter__)
        yield


@contextmanager
def _generators_restored() -> Iterator[None]:
    """Restore the generators of Python and NumPy, from which the step may draw while it is traced."""
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the user's own generator
        yield
