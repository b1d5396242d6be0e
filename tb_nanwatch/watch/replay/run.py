"""The run: a trial is traced, cut down to what is in question, run, and what it changed is put back."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.guard.state import restored_values
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.probe import Probe
from tb_nanwatch.watch.replay.scopes import scopes_noted
from tb_nanwatch.watch.replay.trial import Given, Trial
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

Graph = Any
Tensor = Any
NOT_REPEATABLE: Final = ("Iterator", "OptionalGetNext", "Queue", "Collective", "Xla", "Stage", "Barrier")
"""How the types of operations begin that would take or give something that cannot be put back."""


class CannotReplayError(Exception):
    """A step cannot be run again; the message says why, as the rest of a sentence."""


class DrawnOtherwiseError(Exception):
    """A trial draws in another order than the step did: what the step drew cannot be given to it."""


@dataclass(frozen=True, eq=False)
class Traced:
    """A trial as a graph, not yet run.

    Attributes:
        trial: that was on.
        given: what each ``apply_gradients`` was given in it, in the order of the step.
        graph: with a placeholder for each array among the arguments, and for all that it captures.
        flow: of its data.
        besides: operations that have to run besides, for the probe to see all.
        arguments: by the name of its placeholder, the value of each argument that is an array or a tensor.
        scopes: name scopes that the program opened.
    """

    trial: Trial
    given: Sequence[Given]
    graph: Graph
    flow: Flow
    besides: Sequence[Any]
    arguments: Mapping[str, Tensor]
    scopes: set[str]

    @property
    def fed(self) -> dict[str, Tensor]:
        """What is fed to each placeholder, by its name: the arguments and what is captured."""
        captured = {inner.name: outer for outer, inner in self.graph.captures}
        return {**self.arguments, **captured}


def trace(step: Callable[..., Any], leaves: Sequence[Any], *, trial: Trial, probe: Probe) -> Traced:
    """Trace a step as a trial, every operation instrumented, nothing of it compiled by XLA.

    Args:
        step: takes the leaves and calls the user's function; its result is of no interest.
        leaves: tensors and arrays that the step is to take as inputs.
        trial: takes what ``apply_gradients`` is given.
        probe: not yet attached.

    Raises:
        DrawnOtherwiseError: if what the step drew went to the wrong operations.
        CannotReplayError: if ``apply_gradients`` is not reached, or once for each of many steps in a call.
    """
    values = [tf.convert_to_tensor(leaf) for leaf in leaves]
    graph = FuncGraph("nanwatch_trial")
    scopes: set[str] = set()

    trial.count_operations = lambda: len(probe.nodes)

    def traced(*inputs: Tensor) -> None:
        step(*inputs)

    with trial.on(), probe.attached(), _inlined(scopes), _generators_kept(), tf.summary.record_if(False):
        trace_into(graph, traced, values, name="nanwatch_trial")
    if not trial.given:
        raise CannotReplayError("it did not reach watch.apply_gradients")
    if not probe.feed.is_right(graph):
        raise DrawnOtherwiseError
    besides = probe.look_at_the_rest(graph)
    flow = Flow(probe, graph)
    if flow.is_inside_loop(trial.graph):
        raise CannotReplayError("it takes many steps in one call, and which batch was that of the bad one is not known")
    fed = {tensor.name: value for tensor, value in zip(graph.inputs, values, strict=False)}
    return Traced(trial, trial.given, graph, flow, besides, fed, scopes)


def run(traced: Traced, sinks: Sequence[Tensor], *, starting_from: Callable[[Tensor], None] | None = None) -> None:
    """Run as much of a trial as the sinks need, and put back every variable that it writes.

    Args:
        traced: the trial.
        sinks: of one of its graphs.
        starting_from: called with the handle of each variable that the trial writes, to set it to another value first.

    Raises:
        CannotReplayError: if it would take or give something that cannot be put back.
    """
    callers = [traced.flow.called_from(tensor.graph) for tensor in sinks]
    targets = [tensor if caller is None else caller for tensor, caller in zip(sinks, callers, strict=True)]
    cut, sources = _cut_down(traced.graph, [*targets, *traced.besides])
    _check_repeatable(cut)
    function = callable_function(cut, name=_unique_name())
    fed = traced.fed
    values = [fed[source.name] for source in sources]
    with restored_values(written_handles(traced)) as kept:
        if starting_from is not None:
            for variable in kept:
                starting_from(variable.handle)
        function.call_flat(*values)


def written_handles(traced: Traced) -> list[Tensor]:
    """Return the handles of the resources that a trial writes."""
    fed = traced.fed
    written = {placeholder.name for _, placeholder in writes(traced.graph.get_operations())}
    return [fed[name] for name in sorted(written & fed.keys())]


def operation_types(graphs: Sequence[Graph]) -> set[str]:
    """Return the types of all operations in some graphs."""
    return {op.type for graph in graphs for op in graph.get_operations()}


def _cut_down(graph: Graph, targets: Sequence[Any]) -> tuple[Graph, list[Tensor]]:
    # What the step prints, writes or counts besides is not wanted a second time.
    cut, copies = _lifted(graph, targets)
    debuggers = [op for op in graph.get_operations() if op.type == "DebugIdentityV2" and _source_of(op) in copies]
    if debuggers:
        # What a debugger looks at is wanted as well, though nobody waits for it.
        cut, copies = _lifted(graph, [*targets, *debuggers])
        for earlier, later in itertools.pairwise(debuggers):
            add_control_input(copies[later], copies[earlier])
    sources = [tensor for tensor in graph.inputs if tensor in copies]
    cut.inputs = [copies[tensor] for tensor in sources]
    cut.outputs = [copies[target] for target in targets if isinstance(target, tf.Tensor)]
    besides = [target for target in targets if not isinstance(target, tf.Tensor)]
    # A call that several of the targets come from is one.
    cut.control_outputs = list({copies[op]: None for op in (*besides, *debuggers)})
    return cut, sources


def _lifted(graph: Graph, targets: Sequence[Any]) -> tuple[Graph, Mapping[Any, Any]]:
    """Return a graph with what some tensors and operations depend on, and by each of these its copy."""
    cut = FuncGraph("nanwatch_trial_cut")
    with cut.as_default():
        copies: Mapping[Any, Any] = lift(
            targets, cut, sources=list(graph.inputs), base_graph=graph, add_sources=True, handle_captures=False
        )
    return cut, copies


def _source_of(debugger: Any) -> Any:
    """Return the tensor that an operation of TensorFlow's debugger tells of; its own input where that is none."""
    (told,) = debugger.inputs
    return next(iter(told.op.inputs), told)


def _check_repeatable(cut: Graph) -> None:
    for kind in sorted(operation_types([cut])):
        if kind.startswith(NOT_REPEATABLE):
            raise CannotReplayError(f"it runs {kind}, which would not give it the same again")


_inlining = threading.Lock()


@contextmanager
def _inlined(scopes: set[str]) -> Iterator[None]:
    """Trace functions that are called in the trial as part of it, though they were compiled before, or by XLA."""
    # There is one such class for all threads: of two trials at once, the second would put back what the first had put.
    with _inlining, scopes_noted(scopes):
        yield from _calls_traced()


def _calls_traced() -> Iterator[None]:
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
def _generators_kept() -> Iterator[None]:
    # Python code of the step that draws numbers while it is traced would move the user's generators on.
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the user's own generator
        yield


_names = iter(range(1 << 62))


def _unique_name() -> str:
    return f"nanwatch_trial_{next(_names)}"
