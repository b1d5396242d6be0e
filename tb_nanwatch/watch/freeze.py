"""Putting back what the forward pass changed before the guard could see that the step was bad.

Batch-norm statistics, seed generators and metrics are assigned while the forward pass runs. Their values from before
the step are kept by reading them first: a read shares the variable's buffer, and the assignment that follows takes a
new one, so that keeping costs one operation a variable and no copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.auto_control_deps_utils import get_read_write_resource_inputs

from tb_nanwatch.watch.graph import Graph, Op, captured_handles, handle_of


@dataclass(frozen=True, eq=False)
class Kept:
    """A variable's value from before the step."""

    placeholder: tf.Tensor
    value: tf.Tensor

    def put_back(self) -> tf.Operation:
        """Return the operation that assigns it again."""
        return tf.raw_ops.AssignVariableOp(resource=self.placeholder, value=self.value)


def keep_state(graph: Graph, variables: Sequence[object]) -> list[Kept]:
    """Keep the value of every variable that the operations traced so far assign, except the watched ones.

    Args:
        graph: of the step, forward and backward pass done, the update not yet traced.
        variables: the watched variables; these change only in the update, which the guard withholds.

    Returns:
        Empty for an eager step: there, state that the forward pass changed stays changed.
    """
    if not hasattr(graph, "captures"):
        return []
    watched = {id(handle_of(variable)) for variable in variables}
    handles = captured_handles(graph)
    kept: dict[str, Kept] = {}
    for op, placeholder in writes(graph.get_operations()):
        name = placeholder.name
        if name not in handles or id(handles[name]) in watched or not _is_variable(handles[name]):
            continue
        if name not in kept:
            kept[name] = _read_first(graph, placeholder, handles[name])
        op._add_control_input(kept[name].value.op)
    return list(kept.values())


def hold_back(operations: Sequence[Op], *, until: Op) -> None:
    """Make operations that assign variables wait for the guard, so that a step that it stops leaves them alone.

    Args:
        operations: traced after the guard.
        until: the guard.
    """
    for op, _ in writes(operations):
        op._add_control_input(until)


def writes(operations: Sequence[Op]) -> Iterator[tuple[Op, Any]]:
    """Yield each operation that writes a resource, with the tensor that stands for the resource in its graph."""
    for op in operations:
        if any(tensor.dtype == tf.resource for tensor in op.inputs):
            yield from ((op, placeholder) for placeholder in get_read_write_resource_inputs(op)[1])


def dtype_of(handle: Any) -> tf.DType | None:
    """Return the dtype of the variable behind a resource; ``None`` of another resource: an iterator, table or queue."""
    data = getattr(handle, "_handle_data", None)
    if data is None or len(data.shape_and_type) != 1:
        return None
    return tf.as_dtype(data.shape_and_type[0].dtype)


def _is_variable(handle: Any) -> bool:
    # What is not a variable cannot be put back.
    return dtype_of(handle) is not None


def _read_first(graph: Graph, placeholder: Any, handle: Any) -> Kept:
    dtype = handle._handle_data.shape_and_type[0].dtype
    value = tf.raw_ops.ReadVariableOp(resource=placeholder, dtype=dtype)
    # Automatic control dependencies would order this read behind the assignments that it has to come before.
    graph.experimental_acd_manager.run_independently(value.op)
    return Kept(placeholder, value)
