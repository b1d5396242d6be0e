"""What a traced step's graph tells before it runs: how gradients are clipped, in which order variables are used.

All of it is read once, while the step is traced; an eager step has no graph and tells nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tb_nanwatch.watch.row.measure import Gradient, single_elements
from tb_nanwatch.watch.tf_internals import CondBranchFuncGraph, FuncGraph, WhileBodyFuncGraph

Factor = tuple[str, tf.Tensor]
# TensorFlow ships no type stubs for graphs and operations.
Graph = Any
Op = Any

_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd")
_RESOURCE_NAME = re.compile(r'ResourceHandle\(name="(.+?)(?:/\d+)?"')
_WIDE = (tf.float32, tf.float64)
_PASSING = ("Identity", "StopGradient")
_FIXED_ARITY = 2
_CREATION = ("variable_capturing_scope", "invalid_creator_scope")


def scale_factors(raw: Sequence[Gradient], clipped: Sequence[Gradient]) -> list[Factor] | None:
    """Return by which factors a norm clip scales each gradient, or ``None`` if it does anything else to one of them.

    ``clip_by_norm`` and ``clip_by_global_norm`` multiply and divide a gradient by scalars and nothing more, so the
    norm after clipping follows from the norm before it and need not be measured again.

    Args:
        raw: gradients before clipping, ``[V]``.
        clipped: the same after clipping.

    Returns:
        (``"Mul"`` or ``"RealDiv"``, scalar or ``[V]``), in the order in which the clip applies them; a gradient that
        is ``None`` has a factor of 1.
    """
    pairs = [(a, b) for a, b in zip(raw, clipped, strict=True) if a is not None or b is not None]
    if any(a is None or b is None or a.dtype not in _WIDE for a, b in pairs):
        # In half precision a product may overflow that is finite in the float32 that norms are taken in.
        return None
    chains = [_chain(before, after) for before, after in pairs]
    if not chains or any(chain is None for chain in chains):
        return None
    known = [chain for chain in chains if chain is not None]
    if len({tuple(operation for operation, _ in chain) for chain in known}) != 1:
        return None
    present = [gradient is not None for gradient in raw]
    steps = zip(*known, strict=True)
    return [(step[0][0], _one_factor([factor for _, factor in step], present)) for step in steps]


def backward_order(graph: Graph, variables: Sequence[object]) -> tuple[int | None, ...]:
    """Return each variable's place in the backward pass: the last layer that the forward pass reaches comes first.

    The backward pass visits layers in the reverse of the order in which the forward pass read their variables,
    whichever order gradients are then assembled in.

    Args:
        graph: of the step, forward pass done.
        variables: whose places are asked.

    Returns:
        0 for the first; ``None`` where the graph does not tell, as for a variable that is read inside a nested
        function.
    """
    if not isinstance(graph, FuncGraph):
        return (None,) * len(variables)
    first_read = _first_reads(graph)
    reads = [first_read.get(id(handle_of(variable))) for variable in variables]
    latest_first = sorted({read for read in reads if read is not None}, reverse=True)
    return tuple(None if read is None else latest_first.index(read) for read in reads)


def creation_scopes(graph: Graph) -> list[list[Any] | None]:
    """Return the variable creation scope of each ``tf.function`` around the code that is traced now, innermost first.

    Args:
        graph: that is traced now.

    Returns:
        For the first trace of a function, the list of the variables that it has made so far. If any are there at its
        end, TensorFlow drops this trace, and traces and runs another. For a later trace, which may make none, ``None``.

    Sources:
        ``tf.function`` when it first traces (``Function._initialize``).
    """
    creators = [creator for _, creator in reversed(graph._variable_creator_stack) if creator.__name__ in _CREATION]
    return [inspect.getclosurevars(creator).nonlocals.get("created_variables") for creator in creators]


def handle_of(variable: Any) -> Any:
    """Return the resource handle of a TensorFlow or Keras variable."""
    inner = variable if isinstance(variable, tf.Variable) else variable.value
    # For what every replica has, the first replica's own stands.
    inner = getattr(inner, "_primary", inner)
    # A reference variable of TensorFlow 1 has none: there the reference stands for it.
    return inner.handle if hasattr(inner, "handle") else inner._ref()


def name_of(handle: Any) -> str | None:
    """Return the name that a variable was made with, from its resource handle; ``None`` if the handle has none.

    Sources:
        A handle prints the name of its resource: that of the variable and a number.
    """
    found = _RESOURCE_NAME.search(str(handle))
    return found.group(1) if found else None


def with_enclosing(graph: Graph) -> Iterator[Graph]:
    """Yield a graph, and where it is a branch of a conditional, the graphs around it that run whenever it does."""
    yield graph
    while isinstance(graph, CondBranchFuncGraph):
        graph = graph.outer_graph
        yield graph


def function_of(graph: Graph) -> Graph:
    """Return the graph of the function that a branch, or the body of a loop, is a part of."""
    while isinstance(graph, CondBranchFuncGraph | WhileBodyFuncGraph):
        graph = graph.outer_graph
    return graph


def is_inside(graph: Graph, other: Graph) -> bool:
    """Return whether a graph is another one, or of a function or branch inside it."""
    return any(one is other for one in _with_outer(graph))


def is_in_loop() -> bool:
    """Return whether what is traced now is in the body of a loop of TensorFlow's."""
    return any(isinstance(one, WhileBodyFuncGraph) for one in _with_outer(tf.compat.v1.get_default_graph()))


def _with_outer(graph: Graph) -> Iterator[Graph]:
    yield graph
    while isinstance(graph, FuncGraph):
        graph = graph.outer_graph
        yield graph


def captured_handles(graph: Graph) -> dict[str, Any]:
    """Return the external resource behind each placeholder of ``graph`` that stands for one, by its name there."""
    pairs: Iterable[tuple[Any, Any]] = graph.captures
    return {inner.name: outer for outer, inner in pairs if inner.dtype == tf.resource}


def outermost(handle: Any) -> Any:
    """Return the resource that a placeholder of a nested function or branch stands for, as far out as can be seen."""
    while isinstance(getattr(handle, "graph", None), FuncGraph):
        outer = captured_handles(handle.graph).get(handle.name)
        if outer is None:
            break
        handle = outer
    return handle


def _first_reads(graph: Graph) -> dict[int, int]:
    handles = captured_handles(graph)
    reads: dict[int, int] = {}
    for place, op in enumerate(graph.get_operations()):
        if op.type in _READS and op.inputs[0].name in handles:
            reads.setdefault(id(handles[op.inputs[0].name]), place)
    return reads


def _chain(raw: Gradient, clipped: Gradient) -> tuple[Factor, ...] | None:
    if isinstance(raw, tf.IndexedSlices) and isinstance(clipped, tf.IndexedSlices):
        return _chain(raw.values, clipped.values)
    if not _is_symbolic(raw) or not _is_symbolic(clipped):
        return () if raw is clipped else None
    factors: list[Factor] = []
    source: Any = raw
    tensor: Any = clipped
    while tensor.name != source.name:
        step = _step_back(tensor.op)
        if step is None:
            return None
        tensor, factor = step
        factors += [factor] if factor else []
    return tuple(reversed(factors))


def _step_back(op: Op) -> tuple[tf.Tensor, Factor | None] | None:
    if op.type in _PASSING:
        return op.inputs[0], None
    if op.type not in ("Mul", "RealDiv") or len(op.inputs) != _FIXED_ARITY:
        return None
    left, right = op.inputs
    if _is_scalar(right):
        return left, (op.type, right)
    return (right, (op.type, left)) if op.type == "Mul" and _is_scalar(left) else None


def _one_factor(factors: list[tf.Tensor], present: list[bool]) -> tf.Tensor:
    if all(factor is factors[0] for factor in factors):
        return _flat(factors[0])
    constants = [tf.get_static_value(factor) for factor in factors]
    if all(value is not None and value == constants[0] for value in constants):
        return tf.cast(tf.constant(constants[0]), tf.float32)
    given = iter(_wide(factor) for factor in factors)
    return single_elements([next(given) if there else tf.ones([]) for there in present])


def _flat(factor: tf.Tensor) -> tf.Tensor:
    return _wide(factor if factor.shape.rank == 0 else tf.reshape(factor, []))


def _wide(factor: tf.Tensor) -> tf.Tensor:
    return factor if factor.dtype == tf.float32 else tf.cast(factor, tf.float32)


def _is_scalar(tensor: tf.Tensor) -> bool:
    return bool(tensor.shape.num_elements() == 1)


def _is_symbolic(tensor: Gradient) -> bool:
    return tensor is not None and bool(tf.is_symbolic_tensor(tensor))
