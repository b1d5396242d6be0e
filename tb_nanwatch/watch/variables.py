"""Variables in a graph: which variable a tensor stands for, its value, what writes it, and the order of first use.

A *handle* stands for a variable. It is the tensor of the variable's resource or, for a reference variable of
TensorFlow 1, the reference itself. Inside a function a placeholder stands for the handle; in a session's graph,
operations such as ``Enter`` and ``Switch`` pass it on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor, captured_handles
from tb_nanwatch.watch.tf_internals import (
    FuncGraph,
    ResourceVariable,
    current_replica,
    handle_dtypes,
    is_reference,
    primary_of,
    reference_of,
    run_independently,
    takes_reference,
    written_resources,
)

HANDLES: Final = frozenset({"VarHandleOp"})
REFERENCES: Final = frozenset({"Variable", "VariableV2"})
READS: Final = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})
_PASSING: Final = frozenset({"Identity", "RefIdentity", "Switch", "RefSwitch", "Enter", "RefEnter"})
_NO_USE: Final = frozenset(
    {"Assign", "AssignVariableOp", "IsVariableInitialized", "VarIsInitializedOp", "SaveV2", "VariableShape", "NoOp"}
)
_NO_WRITE: Final = frozenset({"IsVariableInitialized", "RefEnter", "RefExit", "RefIdentity", "RefMerge", "RefSwitch"})
_RESOURCE_NAME: Final = re.compile(r'ResourceHandle\(name="(.+?)(?:/\d+)?"')


# Identity


def handle_of(variable: Any) -> Tensor:
    """Return the handle of a TensorFlow or Keras variable; for a variable of many replicas, the first replica's."""
    inner = primary_of(variable if isinstance(variable, tf.Variable) else variable.value)
    return inner.handle if hasattr(inner, "handle") else reference_of(inner)


def handles_here(variable: Any) -> list[Tensor]:
    """Return the handles of the copies of a variable that this code may assign.

    A variable of many replicas has a copy for each. Code of a replica may assign its own copy, and other code all.
    """
    inner = variable if isinstance(variable, tf.Variable) else variable.value
    copies = getattr(inner, "values", ())
    if not copies or current_replica() is not None:
        return [inner.handle]
    return [copy.handle for copy in copies]


def source_behind(tensor: Tensor) -> Tensor:
    """Return the handle that a tensor stands for, followed as far out as its graphs allow."""
    if _is_in_session(tensor):
        while tensor.op.type in _PASSING:
            tensor = tensor.op.inputs[0]
        return tensor
    while isinstance(getattr(tensor, "graph", None), FuncGraph):
        outer = captured_handles(tensor.graph).get(tensor.name)
        if outer is None:
            break
        tensor = outer
    return tensor


def key_of(tensor: Tensor) -> Any:
    """Return a key that two tensors share if and only if they stand for the same variable."""
    source = source_behind(tensor)
    return source.op.name if _is_in_session(source) else id(source)


def name_of(handle: Tensor) -> str | None:
    """Return the name that a variable was created with; ``None`` if its handle has none.

    Sources:
        An eager handle prints the name of its resource: the name of the variable and a number.
    """
    if _is_in_session(handle):
        return str(handle.op.name)
    found = _RESOURCE_NAME.search(str(handle))
    return found.group(1) if found else None


def dtype_of(handle: Tensor) -> tf.DType | None:
    """Return the dtype of a variable; ``None`` for any other resource, such as an iterator, a table or a queue."""
    if is_reference(handle):
        return handle.dtype.base_dtype
    if _is_in_session(handle) and handle.op.type in HANDLES:
        return tf.as_dtype(handle.op.get_attr("dtype"))
    dtypes = handle_dtypes(handle)
    return tf.as_dtype(dtypes[0]) if len(dtypes) == 1 else None


def is_variable(handle: Tensor) -> bool:
    """Return whether a handle is a variable's; no other resource can be put back."""
    return handle.op.type in HANDLES | REFERENCES if _is_in_session(handle) else dtype_of(handle) is not None


def _is_in_session(tensor: Tensor) -> bool:
    return bool(tf.is_symbolic_tensor(tensor)) and not isinstance(tensor.graph, FuncGraph)


# Values


def read_first(graph: Graph, handle: Tensor) -> tf.Tensor:
    """Return the value of a variable, read without waiting for any operation.

    Args:
        graph: graph to read it in.
        handle: handle of the variable, or the placeholder that stands for it in a function.
    """
    # The user may make all that is built here wait for an operation that this read must precede.
    with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch"):
        if is_reference(handle):
            # A plain read would give the variable's own memory, which an assignment overwrites.
            return tf.raw_ops.DeepCopy(x=handle)
        value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype_of(source_behind(handle)))
    # Automatic control dependencies would order this read after the assignments that it must precede.
    run_independently(value.op)
    return value


def device_variable(initial: tf.Tensor, name: str, *, shape: tf.TensorShape | None = None) -> tf.Variable:
    """Create a variable that belongs to the watch."""
    # A tf.function that is being traced notices each new tf.Variable, and would trace the user's step a second time.
    return ResourceVariable(initial, trainable=False, name=f"nanwatch/{name}", shape=shape)


# Writers


def writes(operations: Iterable[Op]) -> Iterator[tuple[Op, Tensor]]:
    """Yield each operation that writes a resource or a reference, with the input that it writes."""
    for op in operations:
        written: list[Tensor] = []
        if any(is_reference(tensor) for tensor in op.inputs) and op.type not in _NO_WRITE and takes_reference(op):
            written += [tensor for tensor in op.inputs if is_reference(tensor)]
        if any(tensor.dtype == tf.resource for tensor in op.inputs):
            written += written_resources(op)
        yield from ((op, tensor) for tensor in written)


def variable_writes(operations: Iterable[Op]) -> Iterator[tuple[Op, Tensor]]:
    """Yield each operation that writes a variable, with the variable's handle."""
    for op, tensor in writes(operations):
        source = source_behind(tensor)
        if is_variable(source):
            yield op, source


# Order


def backward_order(graph: Graph | None, variables: Sequence[Any]) -> tuple[int | None, ...]:
    """Return each variable's place in the backward pass: the last layer that the forward pass reaches comes first.

    The backward pass visits layers in the reverse of the order in which the forward pass read their variables. The
    order in which gradients are then collected does not matter.

    Args:
        graph: graph of the step after the forward pass was built; ``None`` for an eager step.
        variables: variables to place.

    Returns:
        0 for the first. ``None`` for a variable that the graph does not use, or reads only inside a nested function.
    """
    if graph is None:
        return (None,) * len(variables)
    handles = [handle_of(variable) for variable in variables]
    places = _first_reads(graph, handles) if isinstance(graph, FuncGraph) else _first_uses(graph, handles)
    latest_first = sorted({place for place in places if place is not None}, reverse=True)
    return tuple(None if place is None else latest_first.index(place) for place in places)


def _first_reads(graph: Graph, handles: Sequence[Tensor]) -> list[int | None]:
    captured = captured_handles(graph)
    reads: dict[int, int] = {}
    for place, op in enumerate(graph.get_operations()):
        if op.type in READS and op.inputs[0].name in captured:
            reads.setdefault(id(captured[op.inputs[0].name]), place)
    return [reads.get(id(handle)) for handle in handles]


def _first_uses(graph: Graph, handles: Sequence[Tensor]) -> list[int | None]:
    # A session's graph reads a variable where it creates it. The order of the layers shows in the users of that read.
    places: Mapping[str, int] = {op.name: place for place, op in enumerate(graph.get_operations())}
    return [min((places[op.name] for op in _users(handle)), default=None) for handle in handles]


def is_used_by(operations: Collection[Op], handles: Sequence[Tensor]) -> bool:
    """Return whether any of some operations of a session's graph uses one of the variables."""
    return any(op in operations for handle in handles for op in _users(handle))


def _users(tensor: Tensor) -> Iterator[Op]:
    for op in tensor.consumers():
        if op.type in _PASSING or op.type == "ReadVariableOp":
            yield from (user for output in op.outputs for user in _users(output))
        elif op.type not in _NO_USE:
            yield op
