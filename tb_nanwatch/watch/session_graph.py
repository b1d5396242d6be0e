"""What a graph of TensorFlow 1 tells: what a tensor depends on, and where its variables stand.

A variable is known by its source: the tensor of its handle, or if it is a reference variable, the reference itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.tf_internals import has_output_context, is_in_while_loop, written_resources

Op = Any
Tensor = Any
Graph = Any
HANDLES: Final = frozenset({"VarHandleOp"})
REFERENCES: Final = frozenset({"Variable", "VariableV2"})
_PASSING: Final = frozenset({"Identity", "ReadVariableOp", "RefIdentity", "Switch", "RefSwitch", "Enter", "RefEnter"})
_NO_USE: Final = frozenset(
    {"Assign", "AssignVariableOp", "IsVariableInitialized", "VarIsInitializedOp", "SaveV2", "VariableShape", "NoOp"}
)
_ONLY_LOOKS: Final = frozenset({"IsVariableInitialized", "RefEnter", "RefExit", "RefIdentity", "RefMerge", "RefSwitch"})


def is_session_graph() -> bool:
    """Return whether operations that are created now are run by a session of TensorFlow 1."""
    return not tf.compat.v1.executing_eagerly_outside_functions()


def ancestors(
    roots: Iterable[Any], *, stop: Callable[[Tensor], bool] = lambda _: False, by_control: bool = True
) -> set[Op]:
    """Return the operations that have to run for some to run, these included.

    Args:
        roots: operations or tensors of one graph.
        stop: of a tensor, whether what lies behind it is not asked after.
        by_control: whether those count that are only waited for, and give no value.
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


def source_of(variable: Any) -> Tensor:
    """Return the source of a variable."""
    handle = getattr(variable, "handle", None)
    return variable._ref() if handle is None else handle


def source_behind(tensor: Tensor) -> Tensor | None:
    """Return the source of the variable that a handle or a reference, however passed on, stands for."""
    while tensor.op.type in _PASSING and tensor.op.type != "ReadVariableOp":
        tensor = tensor.op.inputs[0]
    return tensor if tensor.op.type in HANDLES | REFERENCES else None


def name_of_source(source: Tensor) -> str:
    """Return the name of a variable."""
    return str(source.op.name)


def writes(operations: Iterable[Op]) -> Iterator[tuple[Op, Tensor]]:
    """Yield each operation that writes a variable, with the variable's source."""
    for op in operations:
        written = [tensor for tensor in op.inputs if tensor.dtype._is_ref_dtype] if _takes_reference(op) else []
        if any(tensor.dtype == tf.resource for tensor in op.inputs):
            written += written_resources(op)
        yield from ((op, source) for tensor in written if (source := source_behind(tensor)) is not None)


def is_in_loop(op: Op) -> bool:
    """Return whether an operation stands inside a loop of TensorFlow 1, where nothing from outside can wait for it."""
    return is_in_while_loop(op)


def is_at_top(tensor: Tensor, graph: Graph) -> bool:
    """Return whether a tensor is made whenever its graph runs, and not in a branch, a loop or a function."""
    return tensor.graph is graph and not has_output_context(tensor.op)


def dtype_of_source(source: Tensor) -> tf.DType:
    """Return the dtype of a variable."""
    return tf.as_dtype(source.op.get_attr("dtype")) if source.dtype == tf.resource else source.dtype.base_dtype


def backward_order(graph: Graph, variables: Sequence[Any]) -> tuple[int | None, ...]:
    """Return each variable's place in the backward pass: the last layer that the forward pass reaches comes first.

    Args:
        graph: of the step.
        variables: whose places are asked.

    Returns:
        0 for the first; ``None`` for one that nothing uses.
    """
    place = {op.name: at for at, op in enumerate(graph.get_operations())}
    uses = [min((place[op.name] for op in _users(source_of(variable))), default=None) for variable in variables]
    latest_first = sorted({use for use in uses if use is not None}, reverse=True)
    return tuple(None if use is None else latest_first.index(use) for use in uses)


def has_read(operations: Collection[Op], sources: Sequence[Tensor]) -> bool:
    """Return whether any of some operations uses one of the variables."""
    return any(op in operations for source in sources for op in _users(source))


def _users(source: Tensor) -> Iterator[Op]:
    for op in source.consumers():
        if op.type in _PASSING:
            yield from (user for output in op.outputs for user in _users(output))
        elif op.type not in _NO_USE:
            yield op


def _takes_reference(op: Op) -> bool:
    return op.type not in _ONLY_LOOKS and any(argument.is_ref for argument in op.op_def.input_arg)
