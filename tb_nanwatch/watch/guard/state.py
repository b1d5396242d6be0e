"""State that a step changes before its guard decides: its value is kept and, after a bad step, put back.

Batch-norm statistics, seed generators and metrics are assigned during the forward pass. A read before the assignment
keeps the old value. In TensorFlow 2 the read shares the variable's buffer and the assignment takes a new one, so it
costs one operation and no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor, ancestors, with_enclosing
from tb_nanwatch.watch.tf_internals import FuncGraph, add_control_input, is_in_loop, is_reference
from tb_nanwatch.watch.variables import dtype_of, handle_of, is_variable, key_of, read_first, source_behind, writes


@dataclass(frozen=True, eq=False)
class KeptVariable:
    """A variable and its value from before the step.

    Attributes:
        handle: handle of the variable.
        value: value that was read before the step assigned the variable.
    """

    handle: Tensor
    value: tf.Tensor

    def restore(self) -> Any:
        """Return the operation that assigns the value again; an eager value is assigned at once.

        The operation takes the handle that the step's own operations take. TensorFlow orders two assignments only if it
        sees that both are of one variable.
        """
        if is_reference(self.handle):
            return tf.raw_ops.Assign(ref=self.handle, value=self.value).op
        return tf.raw_ops.AssignVariableOp(resource=self.handle, value=self.value)


def keep_state(
    graph: Graph, *, only: Collection[int] | None = None, excluded: Collection[int] = ()
) -> list[KeptVariable]:
    """Keep the value of every variable that the operations traced so far assign.

    The list may contain a trained variable: spectral normalisation assigns the weights that it normalises.

    Args:
        graph: graph of the step, with the forward and backward pass and without the update. For a branch, the graphs
            around it count too.
        only: ids of the handles of the variables to keep; ``None`` for all.
        excluded: ids of the handles of the variables not to keep.

    Returns:
        An empty list for an eager step, whose forward pass cannot be undone.
    """
    if not isinstance(graph, FuncGraph):
        return []
    kept: dict[Any, KeptVariable] = {}
    for part in reversed([*with_enclosing(graph)]):
        _keep(kept, part.get_operations(), lambda key: (only is None or key in only) and key not in excluded)
    return list(kept.values())


def keep_values(handles: Iterable[Tensor]) -> list[KeptVariable]:
    """Keep the values that variables have now, outside of any graph; a resource of another kind is left out."""
    dtypes = ((handle, dtype_of(handle)) for handle in handles)
    return [
        KeptVariable(handle, tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype))
        for handle, dtype in dtypes
        if dtype is not None
    ]


@contextmanager
def restored_values(handles: Iterable[Tensor]) -> Iterator[list[KeptVariable]]:
    """Restore the values that variables have now when the context ends, outside of any graph."""
    kept = keep_values(handles)
    try:
        yield kept
    finally:
        for variable in kept:
            variable.restore()


@contextmanager
def restored_in_session(session: Any, handles: Iterable[Tensor]) -> Iterator[None]:
    """Restore the values that variables of a session have now when the context ends.

    Args:
        session: session whose graph may be added to.
        handles: handles of the variables.
    """
    graph, distinct = session.graph, list({handle.name: handle for handle in handles}.values())
    values = [np.array(session.run(read_first(graph, handle))) for handle in distinct]
    with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch"):
        given = [tf.compat.v1.placeholder(dtype_of(handle), handle.op.get_attr("shape")) for handle in distinct]
        restored = [KeptVariable(handle, value).restore() for handle, value in zip(distinct, given, strict=True)]
    try:
        yield
    finally:
        session.run(restored, dict(zip(given, values, strict=True)))


def writes_variables(graph: Graph) -> bool:
    """Return whether an operation that was traced so far assigns a variable."""
    return any(is_variable(tensor) for _, tensor in writes(graph.get_operations()))


def restore_if(condition: tf.Tensor, kept: Sequence[KeptVariable]) -> None:
    """Restore variables if a condition of the step, a bool scalar, holds."""

    def restore() -> tf.Tensor:
        with tf.control_dependencies([variable.restore() for variable in kept]):
            return tf.constant(True)

    if kept:
        tf.cond(condition, restore, lambda: tf.constant(False))


def undo_unless(
    allowed: tf.Tensor, graph: Graph, operations: Sequence[Op], *, before: Sequence[KeptVariable] = ()
) -> None:
    """Restore what operations after the guard assigned if the update of their step is not allowed.

    Args:
        allowed: bool scalar of the graph.
        graph: graph of the step, traced to its end.
        operations: operations of the graph that were traced after the guard.
        before: variables that the guard kept. If an operation assigns one of them again, it gets the value from before
            the step. A read before the second assignment could find the value of the first.
    """
    guarded = {key_of(variable.handle): variable for variable in before}
    kept = dict(guarded)
    _keep(kept, operations)
    assigned = {key_of(tensor) for _, tensor in writes(operations)}
    again = [variable for key, variable in kept.items() if key in assigned or key not in guarded]
    if again:
        with graph.as_default(), tf.control_dependencies([op for op, _ in writes(operations)]):
            restore_if(~allowed, again)


@dataclass(frozen=True, eq=False)
class SessionState:
    """The variables that a run of a session writes outside of its update.

    Attributes:
        ordered: variables that are written before the guard: the same run restores them.
        unordered: variables that an operation of ``UPDATE_OPS`` writes and the update does not wait for, as in
            ``tf.group(train_op, update_ops)``. It may run before or after the guard. So their old values come to the
            host with a bad step, and the host assigns them when the run is over.
    """

    ordered: Sequence[KeptVariable]
    unordered: Sequence[KeptVariable]

    @classmethod
    def of(cls, graph: Graph, needed: Iterable[Any]) -> SessionState:
        """Keep what the operations built so far write.

        Args:
            graph: graph of the step.
            needed: operations and tensors that the guard waits for.
        """
        first = ancestors(needed)
        others = ancestors(graph.get_collection(tf.compat.v1.GraphKeys.UPDATE_OPS)) - first
        ordered, unordered = _keep_among(graph, first), _keep_among(graph, others)
        names = {variable.handle.name for variable in ordered}
        return cls(
            ordered,
            [variable for variable in unordered if variable.handle.name not in names and _is_numeric(variable.value)],
        )

    def by_host(self) -> SessionState:
        """Return the same state for a run in which no operation waits to restore it: the host restores all."""
        return SessionState((), [*(one for one in self.ordered if _is_numeric(one.value)), *self.unordered])

    @property
    def names(self) -> set[str]:
        """The names of the handles of all variables."""
        return {variable.handle.name for variable in (*self.ordered, *self.unordered)}

    def packed(self) -> tf.Tensor:
        """Return the values of the unordered variables in one vector, float64 ``[packed_size]``."""
        flat = [tf.reshape(tf.cast(variable.value, tf.float64), [-1]) for variable in self.unordered]
        return tf.concat(flat, 0) if flat else tf.zeros([0], tf.float64)

    @property
    def packed_size(self) -> int:
        """The number of values in :meth:`packed`."""
        return sum(int(variable.value.shape.num_elements() or 0) for variable in self.unordered)

    def restore_unordered(self, session: Any, packed: npt.NDArray[np.float64]) -> None:
        """Assign the unordered variables after a bad run.

        Args:
            session: session that ran it.
            packed: value of :meth:`packed` in that run.
        """
        initializers = _initializers_of(session.graph)
        at = 0
        for variable in self.unordered:
            shape = tuple(variable.value.shape)
            size = int(np.prod(shape))
            values, at = packed[at : at + size].reshape(shape), at + size
            initializer = initializers.get(variable.handle.name)
            if initializer is not None:
                # The graph may be finalized. Its initializer assigns any value that is fed to it.
                session.run(initializer, {initializer.inputs[1]: values.astype(variable.value.dtype.as_numpy_dtype)})


def _keep_among(graph: Graph, operations: set[Op]) -> list[KeptVariable]:
    kept: dict[Any, KeptVariable] = {}
    _keep(kept, [op for op in graph.get_operations() if op in operations])
    return list(kept.values())


def _keep(
    kept: dict[Any, KeptVariable], operations: Sequence[Op], is_wanted: Callable[[Any], bool] = lambda _: True
) -> None:
    """Add each variable that operations assign, unless it is there, and make the assignments wait for its read."""
    for op, tensor in writes(operations):
        handle = source_behind(tensor)
        is_in_function = isinstance(op.graph, FuncGraph)
        # A resource that is created inside the function ends with it.
        is_local = is_in_function and handle is tensor
        if is_local or not is_variable(handle) or is_in_loop(op) or not is_wanted(key_of(handle)):
            continue
        key = key_of(handle)
        if key not in kept:
            kept[key] = KeptVariable(handle, read_first(op.graph, tensor if is_in_function else handle))
        if kept[key].value.graph is op.graph:
            add_control_input(op, kept[key].value.op)


def _is_numeric(value: tf.Tensor) -> bool:
    """Return whether a value is of a fixed size and float64 can represent it."""
    return bool(value.shape.is_fully_defined() and (value.dtype.is_floating or value.dtype.is_integer))


def _initializers_of(graph: Graph) -> Mapping[str, Op]:
    """Map the name of each variable's handle to the operation that assigns its first value."""
    keys = tf.compat.v1.GraphKeys
    variables = [*graph.get_collection(keys.GLOBAL_VARIABLES), *graph.get_collection(keys.LOCAL_VARIABLES)]
    return {handle_of(variable).name: variable.initializer for variable in variables}
