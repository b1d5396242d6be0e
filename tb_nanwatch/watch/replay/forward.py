"""Which forward operation an operation of a gradient belongs to."""

from __future__ import annotations

from typing import Any, Final

from tb_nanwatch.watch.replay.creation import Forward
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.lines import users_line
from tb_nanwatch.watch.replay.probe import Node

Op = Any
_SUMS: Final = frozenset({"Add", "AddN", "AddV2"})


def forward_op(flow: Flow, node: Node) -> Op | None:
    """Return the forward operation that an operation of a gradient belongs to.

    Args:
        flow: of the trial.
        node: the operation; of a gradient of a gradient, too.

    Returns:
        ``None`` for an operation of the forward pass, and where it cannot be told.
    """
    of = node.creation.of
    if of is None:
        is_sum = node.creation.in_gradient and node.op.type in _SUMS
        return _differentiated(flow, node) if is_sum else None
    op = _found(flow, of)
    if op is None:
        return None
    forward = flow.node_of(op)
    return (forward_op(flow, forward) if forward else None) or op


def _found(flow: Flow, of: Forward) -> Op | None:
    """Find a forward operation by what its gradient was told of it; ``None`` unless that fits one line only."""
    if of.output is not None:
        return flow.real(of.output).op
    fitting = [node.op for node in flow.nodes if node.op.type == of.type and _fits(flow, node.op, of)]
    lines = {users_line(flow.stack(op)) for op in fitting}
    return fitting[0] if len(lines) == 1 else None


def _fits(flow: Flow, op: Op, of: Forward) -> bool:
    # A function that opens a scope of its own names its one operation after it.
    if of.scope.rstrip("/") not in (op.name, op.name.rpartition("/")[0]):
        return False
    pairs = zip(op.inputs, of.inputs, strict=False)
    return all(told is None or flow.real(told).name == flow.real(given).name for given, told in pairs)


def _differentiated(flow: Flow, node: Node) -> Op | None:
    """Return what a sum of gradients is the gradient of: what all the operations that they come from were given."""
    parts = [place.node for place in flow.inputs(node.op) if place.node is not None]
    forwards = [op for part in parts if part.creation.of and (op := _found(flow, part.creation.of)) is not None]
    if len(forwards) < len(parts) or not forwards:
        return None
    given = [{flow.real(tensor).name: tensor for tensor in op.inputs} for op in forwards]
    common = set.intersection(*(set(names) for names in given))
    return flow.real(given[0][common.pop()]).op if len(common) == 1 else None
