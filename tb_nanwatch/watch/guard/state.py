"""Putting back what the forward pass changed before the guard could see that the step was bad.

Batch-norm statistics, seed generators and metrics are assigned while the forward pass runs. Their values from before
the step are kept by reading them first: a read shares the variable's buffer, and the assignment that follows takes a
new one, so that keeping costs one operation a variable and no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, captured_handles, with_enclosing
from tb_nanwatch.watch.variables import dtype_of, is_variable, source_behind, writes


@dataclass(frozen=True, eq=False)
class Kept:
    """A variable's value from before the step.

    Attributes:
        value: read before the step assigned it.
        handle: of the variable.
    """

    value: tf.Tensor
    handle: Any

    def put_back(self) -> tf.Operation:
        """Return the operation that assigns it again.

        It names the variable by its handle, as the step's own operations do: were it by what stands for the handle in
        an outer graph, TensorFlow would not see that both are of one variable, and leave their order open.
        """
        return tf.raw_ops.AssignVariableOp(resource=self.handle, value=self.value)


def keep_state(graph: Graph, *, only: Collection[int] | None = None, besides: Collection[int] = ()) -> list[Kept]:
    """Keep the value of every variable that the operations traced so far assign.

    A trained variable may be among them: spectral normalisation assigns the weights that it normalises.

    Args:
        graph: of the step, forward and backward pass done, the update not yet traced. Where it is a branch, what is
            assigned before the branch is kept too.
        only: by the id of their handles, the variables in question; by default all.
        besides: by the id of their handles, variables that are not.

    Returns:
        Empty for an eager step: there, state that the forward pass changed stays changed.
    """
    if not hasattr(graph, "captures"):
        return []
    kept: dict[int, Kept] = {}
    for one in reversed([*with_enclosing(graph)]):
        _keep(kept, one.get_operations(), lambda handle: (only is None or handle in only) and handle not in besides)
    return list(kept.values())


def writes_variables(graph: Graph) -> bool:
    """Return whether anything that was traced so far assigns a variable."""
    return any(is_variable(placeholder) for _, placeholder in writes(graph.get_operations()))


def hold_back(operations: Sequence[Op], *, until: Op) -> None:
    """Make operations that assign variables wait for the guard, so that a step that it stops leaves them alone.

    Args:
        operations: traced after the guard.
        until: the guard.
    """
    for op, _ in writes(operations):
        op._add_control_input(until)


def hold_update_back(operations: Sequence[Op], *, until: Op, is_clipped: bool) -> None:
    """Make an update wait for the guard: what it assigns, and where nothing clips what it makes of the gradients.

    The backward pass is faster without arithmetic beside it that the guard would keep waiting anyway, and whose results
    are out of the processor's cache by then. Of clipped gradients it must not wait: TensorFlow's graph optimiser could
    not fold the clip's scale into the learning rate, and would go over each once more.

    Args:
        operations: of the update.
        until: the guard.
        is_clipped: whether the gradients are.
    """
    hold_back(operations, until=until)
    if not is_clipped:
        for op in _of_gradients_alone(operations):
            op._add_control_input(until)


def undo_unless(allowed: tf.Tensor, graph: Graph, operations: Sequence[Op], *, before: Sequence[Kept] = ()) -> None:
    """Put back what operations assigned, after all of them, where the update of their step is not allowed.

    Args:
        allowed: bool scalar of the graph.
        graph: of the step, traced to its end.
        operations: of the graph, that were traced after the guard.
        before: what the guard kept. A variable among it that is assigned again has to be what the step began with: a
            read that only comes before the second assignment may find what the first one left.
    """
    guarded = {id(one.handle): one for one in before}
    kept = dict(guarded)
    _keep(kept, operations, lambda _: True)
    assigned = {id(source_behind(placeholder)) for _, placeholder in writes(operations)}
    again = [one for handle, one in kept.items() if handle in assigned or handle not in guarded]
    if not again:
        return

    with graph.as_default(), tf.control_dependencies([op for op, _ in writes(operations)]):
        put_back_if(~allowed, again)


def put_back_if(condition: tf.Tensor, kept: Sequence[Kept]) -> None:
    """Put back what was kept, where a condition holds: a bool scalar of the step."""

    def put_back() -> tf.Tensor:
        with tf.control_dependencies([one.put_back() for one in kept]):
            return tf.constant(True)

    if kept:
        tf.cond(condition, put_back, lambda: tf.constant(False))


def _of_gradients_alone(operations: Sequence[Op]) -> Iterator[Op]:
    own = {op.name for op in operations}
    for op in operations:
        if op.inputs and not any(tensor.dtype == tf.resource or tensor.op.name in own for tensor in op.inputs):
            yield op


def _keep(kept: dict[int, Kept], operations: Sequence[Op], is_in_question: Callable[[int], bool]) -> None:
    if not operations:
        return
    graph = operations[0].graph
    handles = captured_handles(graph)
    for op, placeholder in writes(operations):
        handle = source_behind(placeholder)
        if placeholder.name not in handles or not is_variable(handle) or not is_in_question(id(handle)):
            continue
        if id(handle) not in kept:
            kept[id(handle)] = _read_first(graph, placeholder, handle)
        if kept[id(handle)].value.graph is graph:
            op._add_control_input(kept[id(handle)].value.op)


def _read_first(graph: Graph, placeholder: Any, handle: Any) -> Kept:
    # Whatever the user makes the update wait for may be what the read has to come before.
    with graph.as_default(), graph.control_dependencies(None):
        value = tf.raw_ops.ReadVariableOp(resource=placeholder, dtype=dtype_of(handle))
    # Automatic control dependencies would order this read behind the assignments that it has to come before.
    graph.experimental_acd_manager.run_independently(value.op)
    return Kept(value, handle)
