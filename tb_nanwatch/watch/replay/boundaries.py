"""How data enters the graphs of a step and crosses from one of them into another.

Between graphs only places connect. The n-th input of a branch is the n-th value that the ``If`` hands to it. The n-th
input of a loop's body is the n-th value that the ``While`` was given, or that the body returned in the round before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.replay.probe import Probe
from tb_nanwatch.watch.tf_internals import body_graph, inner_graphs
from tb_nanwatch.watch.variables import READS, writes

HOLDERS: Final = (tf.variant, tf.resource)
_LOOPS: Final = frozenset({"While", "StatelessWhile"})
FUNCTIONS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


class Boundaries(Protocol):
    """How data enters a step's graphs and crosses from one of them into another."""

    def outside(self, tensor: Tensor) -> Tensor | None:
        """Return the root graph's tensor for a value from outside the step; ``None`` for any other tensor."""

    def is_crossed_at(self, tensor: Tensor) -> bool:
        """Return whether a tensor comes from another graph that reports, so that its own operation made nothing."""

    def is_at(self, tensor: Tensor) -> bool:
        """Return whether a tensor enters its graph, or is an output of an operation that runs other graphs."""

    def across(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the tensors on the other side of the boundary that a tensor stands at."""

    def read_by(self, op: Op) -> Tensor | None:
        """Return the handle of the variable that an operation only reads; ``None`` for any other operation."""

    def entered_by(self, op: Op) -> Sequence[Tensor] | None:
        """Return the values that entered a loop that does not report, for its exit; ``None`` for other operations."""

    def written_by(self, op: Op) -> Sequence[Tensor]:
        """Return the handles of the variables that an operation writes."""

    def is_in_loop(self, graph: Graph) -> bool:
        """Return whether a graph may run several times in one step."""


class FunctionBoundaries:
    """The boundaries between the graphs of a traced ``tf.function``."""

    def __init__(self, probe: Probe, root: Graph) -> None:
        """Connect the graphs of a trace.

        Args:
            probe: the probe that was attached while the step was traced.
            root: the graph of the step.
        """
        self._probe, self._root = probe, root
        self._caller: dict[int, Op] = {}
        # TensorFlow captures a small tensor as a constant. The constant is an input as a placeholder is.
        self._entries = {
            key_of(probe.original(tensor)): tensor for graph in probe.graphs for tensor in getattr(graph, "inputs", ())
        }
        for graph in probe.graphs:
            for op in graph.get_operations():
                for inner in inner_graphs(op):
                    self._caller[id(inner)] = op

    def outside(self, tensor: Tensor) -> Tensor | None:
        """See :class:`Boundaries`."""
        return self._entries.get(key_of(tensor)) if tensor.graph is self._root else None

    def is_crossed_at(self, tensor: Tensor) -> bool:
        """See :class:`Boundaries`."""
        return key_of(tensor) in self._entries or any(self._probe.has_seen(graph) for graph in inner_graphs(tensor.op))

    def is_at(self, tensor: Tensor) -> bool:
        """See :class:`Boundaries`."""
        return key_of(tensor) in self._entries or bool(inner_graphs(tensor.op))

    def across(self, tensor: Tensor) -> Sequence[Tensor]:
        """See :class:`Boundaries`."""
        entry = self._entries.get(key_of(tensor))
        return _returned_as(tensor) if entry is None else self._handed_to(entry)

    def read_by(self, op: Op) -> Tensor | None:
        """See :class:`Boundaries`."""
        return op.inputs[0] if op.type in READS else None

    def entered_by(self, op: Op) -> Sequence[Tensor] | None:
        """Return ``None``: the inside of every loop reports."""
        return None

    def written_by(self, op: Op) -> Sequence[Tensor]:
        """See :class:`Boundaries`."""
        return [handle for _, handle in writes([op])]

    def is_in_loop(self, graph: Graph) -> bool:
        """Return whether a graph belongs to a loop or a dataset, or is called from one."""
        while id(graph) in self._caller:
            caller = self._caller[id(graph)]
            if caller.type in _LOOPS:
                return True
            graph = caller.graph
        # A dataset calls a function that no operation of the step's own graph calls.
        return graph is not self._root

    def called_from(self, graph: Graph) -> Op | None:
        """Return the operation of the root graph through which a graph runs; ``None`` for the root graph."""
        caller = None
        while id(graph) in self._caller and graph is not self._root:
            caller = self._caller[id(graph)]
            graph = caller.graph
        return caller

    def _handed_to(self, placeholder: Tensor) -> Sequence[Tensor]:
        graph = placeholder.graph
        caller = self._caller.get(id(graph))
        at = next((place for place, tensor in enumerate(graph.inputs) if tensor.name == placeholder.name), None)
        if caller is None or at is None:
            return []
        if caller.type in _LOOPS:
            body = body_graph(caller)
            return [*body.outputs[at : at + 1], *caller.inputs[at : at + 1]]
        shift = 0 if caller.type in FUNCTIONS else 1
        return list(caller.inputs[at + shift : at + shift + 1])


def _returned_as(tensor: Tensor) -> Sequence[Tensor]:
    """Return the tensors of inner graphs that an output of the operation that runs them may be."""
    op, at = tensor.op, tensor.value_index
    if op.type in _LOOPS:
        return [*body_graph(op).outputs[at : at + 1], *op.inputs[at : at + 1]]
    return [output for graph in inner_graphs(op) for output in graph.outputs[at : at + 1]]


def key_of(tensor: Tensor) -> tuple[int, str]:
    """Return a key that identifies a tensor among those of several graphs."""
    return id(tensor.graph), tensor.name
