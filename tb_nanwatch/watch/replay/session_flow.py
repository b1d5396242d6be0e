"""The operations of a session's graph that report, the flow of their data, and the name scopes that the user opened.

The graph exists already when a step turns out to be bad. A report stands beside an operation, not between it and its
users, so it changes nothing that runs. The inside of loops and functions does not report. A branch of TensorFlow 1 is a
part of its graph, and a report in a branch that is not taken does not run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.record.intake import source_read
from tb_nanwatch.watch.replay.boundaries import FUNCTIONS
from tb_nanwatch.watch.replay.creation import Creation, Forward
from tb_nanwatch.watch.replay.names import without_numbers
from tb_nanwatch.watch.replay.probe import CONTROL_FLOW, Probe, floating_places
from tb_nanwatch.watch.replay.source_lines import Stack, stack_of
from tb_nanwatch.watch.tf_internals import (
    entered_values,
    forward_operation,
    inner_graphs,
    is_in_loop,
    is_operation_type,
)
from tb_nanwatch.watch.variables import HANDLES, READS, REFERENCES, variable_writes

VARIABLES: Final = HANDLES | REFERENCES
"""The operations whose outputs stand for a variable."""
_EXITS: Final = frozenset({"Exit", "RefExit"})
_ROUTES: Final = frozenset(
    {"Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter", "NextIteration", "RefNextIteration", "LoopCond"}
)
_TAKES_GRADIENTS: Final = "_GradientsHelper"
_TENSORFLOW_OPS: Final = os.path.join("tensorflow", "python", "ops", "")
_NUMBER: Final = re.compile(r"_\d+$")
_SHORTEST_NAME: Final = 3


def add_reports(probe: Probe, graph: Graph, operations: Iterable[Op]) -> list[Op]:
    """Add a report beside each operation that makes floating numbers or writes a variable.

    Args:
        probe: receives the reports.
        graph: the graph; it must not be finalized.
        operations: operations of the graph in order of creation.

    Returns:
        The operations that report.
    """
    probe.add_graph(graph)
    reporting = [op for op in operations if _can_report(op)]
    with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch"):
        return [_report_of(probe, op) for op in reporting]


def _report_of(probe: Probe, op: Op) -> Op:
    node = probe.add_node(op, _creation_of(op))
    # The input of a loop's exit belongs to the loop, where no operation outside can read it.
    inputs = () if op.type in _EXITS else op.inputs
    return probe.report(node, inputs, op.outputs, is_timed=False)


def _can_report(op: Op) -> bool:
    has_values = bool(floating_places(op.outputs)) or any(True for _ in variable_writes([op]))
    return has_values and op.type not in _ROUTES | VARIABLES and not is_in_loop(op)


def _creation_of(op: Op) -> Creation:
    original = forward_operation(op)
    forward = None if original is None or not original.outputs else Forward(original.outputs[0], original.type)
    is_in_gradient = forward is not None or any(frame.name == _TAKES_GRADIENTS for frame in stack_of(op))
    return Creation(forward, is_in_gradient)


class SessionBoundaries:
    """See :class:`~tb_nanwatch.watch.replay.boundaries.Boundaries`. Only one graph of a session reports."""

    def __init__(self, fed: Collection[str]) -> None:
        """Prepare.

        Args:
            fed: the names of the tensors that are fed.
        """
        self._fed = frozenset(fed)

    def outside(self, tensor: Tensor) -> Tensor | None:
        """See the protocol."""
        return tensor if tensor.name in self._fed or tensor.op.type in VARIABLES else None

    def is_crossed_at(self, tensor: Tensor) -> bool:
        """See the protocol."""
        return False

    def is_at(self, tensor: Tensor) -> bool:
        """See the protocol."""
        return False

    def across(self, tensor: Tensor) -> Sequence[Tensor]:
        """See the protocol."""
        return ()

    def read_by(self, op: Op) -> Tensor | None:
        """See the protocol."""
        source: Tensor | None = source_read(op)
        return op.inputs[0] if source is None and op.type in READS else source

    def entered_by(self, op: Op) -> Sequence[Tensor] | None:
        """See the protocol."""
        if op.type not in _EXITS:
            return None
        return [tensor for tensor in entered_values(op) if tensor.dtype.is_floating]

    def written_by(self, op: Op) -> Sequence[Tensor]:
        """See the protocol."""
        return [handle for _, handle in variable_writes([op])]

    def is_in_loop(self, graph: Graph) -> bool:
        """See the protocol."""
        return False


def hides_operations(op: Op) -> bool:
    """Return whether an operation is a loop or a function, whose inside does not report."""
    return op.type in _EXITS | CONTROL_FLOW | FUNCTIONS or bool(inner_graphs(op))


def users_scope(name: str, stack: Stack, *, layers: Collection[str | None]) -> str | None:
    """Return the name scopes of an operation without those that TensorFlow opened.

    The graph does not record who opened a scope. But the functions of TensorFlow that open scopes stand on the stack
    that made the operation, and they name the scopes after themselves or after operations.

    Args:
        name: the name of the operation.
        stack: the stack that made it.
        layers: the owners of variables. These scopes are the user's, whatever their names.

    Returns:
        The scope in the form of a layer's name, if it is a layer; ``None`` for an operation in no scope.
    """
    functions = _functions_of_tensorflow(stack)
    parts = [part for part in name.split("/")[:-1] if part]
    while parts and without_numbers("/".join(parts)) not in layers and _is_opened_by(functions, parts[-1]):
        parts.pop()
    scope = "/".join(parts)
    plain = without_numbers(scope)
    return (plain if scope not in layers and plain in layers else scope) or None


def _functions_of_tensorflow(stack: Stack) -> frozenset[str]:
    names = (frame.name.replace("_", "").lower() for frame in stack if _TENSORFLOW_OPS in frame.filename)
    return frozenset(name for name in names if len(name) >= _SHORTEST_NAME)


def _is_opened_by(functions: frozenset[str], part: str) -> bool:
    if is_operation_type(_NUMBER.sub("", part)):
        return True
    plain = _NUMBER.sub("", part).lower().replace("_", "")
    # A scope of the user may contain such a name, as log_likelihood does. In a scope of TensorFlow it is most of it.
    own = (name for name in functions if 2 * len(name) >= len(plain))
    return any(name in plain or (len(plain) >= _SHORTEST_NAME and plain in name) for name in own)
