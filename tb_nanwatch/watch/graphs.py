"""How TensorFlow's graphs relate: which encloses which, and what an operation depends on.

A step of TensorFlow 2 is the graph of a ``tf.function``. Its branches, loops and inner functions are graphs of their
own. A step of TensorFlow 1 is a part of one flat graph that a session runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.tf_internals import (
    CondBranchFuncGraph,
    FuncGraph,
    WhileBodyFuncGraph,
    functional_conditional,
    has_output_context,
    keep_as_one_operation,
    variable_creators,
)

# TensorFlow ships no type stubs for graphs, operations and symbolic tensors.
Graph = Any
Op = Any
Tensor = Any

_CREATION: Final = ("variable_capturing_scope", "invalid_creator_scope")


def is_session_graph() -> bool:
    """Return whether a session of TensorFlow 1 runs the operations that are created now."""
    return not tf.compat.v1.executing_eagerly_outside_functions()


def with_enclosing(graph: Graph) -> Iterator[Graph]:
    """Yield a graph and, if it is a branch of a conditional, the graphs around it that run whenever it does."""
    yield graph
    while isinstance(graph, CondBranchFuncGraph):
        graph = graph.outer_graph
        yield graph


def function_of(graph: Graph) -> Graph:
    """Return the graph of the function that contains a branch or the body of a loop."""
    while isinstance(graph, CondBranchFuncGraph | WhileBodyFuncGraph):
        graph = graph.outer_graph
    return graph


def is_inside(graph: Graph, other: Graph) -> bool:
    """Return whether a graph is another graph, or a function or branch inside it."""
    return any(outer is other for outer in _with_outer(graph))


def is_tracing_loop() -> bool:
    """Return whether the code that is traced now is in the body of a TensorFlow loop."""
    return any(isinstance(graph, WhileBodyFuncGraph) for graph in _with_outer(tf.compat.v1.get_default_graph()))


def _with_outer(graph: Graph) -> Iterator[Graph]:
    yield graph
    while isinstance(graph, FuncGraph):
        graph = graph.outer_graph
        yield graph


def creation_scopes(graph: Graph) -> list[list[Any] | None]:
    """Return the variable creation scope of each ``tf.function`` around the code that is traced now, innermost first.

    Args:
        graph: the graph that is traced now.

    Returns:
        For the first trace of a function, the list of the variables that it has created so far. If the list is not
        empty at the end, TensorFlow drops this trace, traces again and runs the second trace. A later trace may create
        no variable: it has ``None``.

    Sources:
        ``Function._initialize`` in the implementation of ``tf.function``.
    """
    creators = [creator for creator in reversed(variable_creators(graph)) if creator.__name__ in _CREATION]
    return [inspect.getclosurevars(creator).nonlocals.get("created_variables") for creator in creators]


def captured_handles(graph: Graph) -> dict[str, Any]:
    """Map each placeholder of ``graph`` that stands for an outer resource, by its name there, to that resource."""
    pairs: Iterable[tuple[Any, Any]] = graph.captures
    return {inner.name: outer for outer, inner in pairs if inner.dtype == tf.resource}


def ancestors(
    roots: Iterable[Any], *, stop: Callable[[Tensor], bool] = lambda _: False, by_control: bool = True
) -> set[Op]:
    """Return the operations that must run before some operations or tensors have run, with their own operations.

    Args:
        roots: operations or tensors of one graph.
        stop: returns whether the search ends at a tensor.
        by_control: whether control inputs count, which give no value.
    """
    found: set[Op] = set()
    waiting = [getattr(root, "op", root) for root in roots if not (isinstance(root, tf.Tensor) and stop(root))]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs if not stop(tensor)]
            waiting += op.control_inputs if by_control else []
    return found


def is_at_top(tensor: Tensor, graph: Graph) -> bool:
    """Return whether a tensor is computed whenever its graph runs, and not in a branch, a loop or a function."""
    return tensor.graph is graph and not has_output_context(tensor.op)


def rarely(condition: tf.Tensor, usual: Callable[[], Any], rare: Callable[[], Any], *, is_spread: bool = False) -> Any:
    """Branch on a condition that nearly every step meets, so that the other branch costs nothing until it runs.

    TensorFlow lowers a conditional into one switch for each tensor that a branch reads: here, two for every gradient.
    A conditional that stays one operation takes its tensors only when the branch runs.

    Args:
        condition: bool scalar, true for nearly every step.
        usual: builds the usual branch, whose first output is a tensor.
        rare: builds the other branch, with the same outputs.
        is_spread: whether the rare branch uses several devices, which one operation cannot.

    Returns:
        The outputs of the branch that runs.
    """
    if is_session_graph():
        outputs: Any = functional_conditional(condition, usual, rare, name="nanwatch/check")
    else:
        outputs = tf.cond(condition, usual, rare)
    first = outputs[0]
    if tf.is_symbolic_tensor(first) and not is_spread:
        op = first.op
        while op.type not in ("If", "StatelessIf"):
            op = op.inputs[0].op
        keep_as_one_operation(op)
    return outputs
