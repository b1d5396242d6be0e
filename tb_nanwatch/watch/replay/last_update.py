"""A second pass through an update that is over, starting from what it left.

If a variable is non-finite as a step begins, the update of the step before made it so. The variable's old value and the
gradients are gone. The optimizer's slots are still there, as that update wrote them before it read them again. So the
update is traced again with stand-ins for the gradients, and each slot that it reads after writing has today's value:
the update computes from the slots what it computed then.

A slot that is non-finite now was non-finite before that update, or the update made it so. In the second case the pass
starts from the slot without its bad elements, and reads those elements as the pass itself computes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.graphs import captured_handles
from tb_nanwatch.watch.tf_internals import (
    add_control_input,
    add_operation_callback,
    remove_operation_callback,
    run_independently,
)
from tb_nanwatch.watch.variables import dtype_of, handle_of, source_behind, writes


@contextmanager
def slots_from_before(variables: Sequence[Any], *, are_bad_before: bool) -> Iterator[None]:
    """Make each read that follows a write, in what is traced meanwhile, return the value from before the write.

    Args:
        variables: variables that are read as they are written.
        are_bad_before: whether slots that are bad now were bad before the update. If not, their bad elements are read
            as they are written too.
    """
    reads = _ReadsFromBefore(variables, are_bad_before=are_bad_before)
    add_operation_callback(reads.created)
    try:
        yield
    finally:
        remove_operation_callback(reads.created)


def undo_update(handle: Any, finite_before: Sequence[Any]) -> None:
    """Undo what can be undone of an update: bad elements that it made, and its step of a counter.

    Args:
        handle: the handle of a variable that the update wrote.
        finite_before: the handles of the variables that were finite before it.
    """
    dtype = dtype_of(handle)
    clear_bad_elements(handle, finite_before)
    if dtype is not None and dtype.is_integer:
        tf.raw_ops.AssignSubVariableOp(resource=handle, value=tf.ones([], dtype))


def clear_bad_elements(handle: Any, cleared: Sequence[Any]) -> None:
    """Set the bad elements of a floating variable to 0.

    Args:
        handle: the handle of a variable.
        cleared: the handles of the variables to clear; any other variable is left as it is.
    """
    dtype = dtype_of(handle)
    if dtype is not None and dtype.is_floating and any(handle is other for other in cleared):
        value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
        clean = tf.where(tf.math.is_finite(value), value, tf.zeros_like(value))
        tf.raw_ops.AssignVariableOp(resource=handle, value=clean)


class _ReadsFromBefore:
    """The operation callback of :func:`slots_from_before`."""

    def __init__(self, variables: Sequence[Any], *, are_bad_before: bool) -> None:
        self._excluded = {id(handle_of(variable)) for variable in variables}
        self._are_bad_before = are_bad_before
        self._before: dict[tuple[int, str], tf.Tensor] = {}

    def created(
        self, op_type: Any, inputs: Any, *attrs_and_outputs: Any, op_name: str | None = None, graph: Any = None
    ) -> Any:
        outputs = attrs_and_outputs[-1]
        kind = op_type.decode() if isinstance(op_type, bytes) else op_type
        if graph is None or op_name is None or kind == "Placeholder":
            return outputs
        if kind == "ReadVariableOp":
            before = self._before.get((id(graph), inputs[0].name))
            return outputs if before is None else [self._value(before, outputs[0], inputs[0])]
        if any(tensor.dtype == tf.resource for tensor in inputs):
            self._keep_before(outputs[0].op if outputs else graph.get_operation_by_name(op_name))
        return outputs

    def _value(self, before: tf.Tensor, read: tf.Tensor, placeholder: Any) -> tf.Tensor:
        is_bad = None if self._are_bad_before else _bad_elements(source_behind(placeholder))
        return before if is_bad is None else tf.where(is_bad, read, before)

    def _keep_before(self, op: Any) -> None:
        for _, placeholder in writes([op]):
            handle = captured_handles(op.graph).get(placeholder.name)
            dtype = None if handle is None else dtype_of(handle)
            if dtype is None or not dtype.is_floating or id(source_behind(handle)) in self._excluded:
                continue
            key = id(op.graph), placeholder.name
            if key not in self._before:
                value = tf.raw_ops.ReadVariableOp(resource=placeholder, dtype=dtype)
                run_independently(value.op)
                self._before[key] = value
            add_control_input(op, self._before[key].op)


def _bad_elements(handle: Any) -> Any:
    """Return which elements of a variable are non-finite now, bool of its shape; ``None`` if none is."""
    with tf.init_scope():
        value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype_of(handle))
        is_bad = ~np.asarray(tf.math.is_finite(value))
    return is_bad if is_bad.any() else None
