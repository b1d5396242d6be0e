"""Data flow: which operations a tensor may have come from, through branches, loops, functions and lists of tensors.

Within one graph a tensor knows the operation that made it. Between graphs it is known by place: the n-th input of a
branch is the n-th of what was handed to the ``If``, the n-th of a loop's body is the n-th of what the ``While`` was
given or of what the body returned the time before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.replay.lines import Stack, has_users_line_within, stack_of
from tb_nanwatch.watch.replay.probe import Node, Probe, constant_of, is_floating
from tb_nanwatch.watch.replay.uses import name_of_captured, name_of_constant
from tb_nanwatch.watch.tf_internals import body_graph, inner_graphs
from tb_nanwatch.watch.variables import writes

Op = Any
Graph = Any
Tensor = Any
READS: Final = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})
_LOOPS = frozenset({"While", "StatelessWhile"})
_FUNCTIONS = ("PartitionedCall", "StatefulPartitionedCall")
_HOLDERS = (tf.variant, tf.resource)
_TAKING_GRADIENTS: Final = frozenset({"imperative_grad", "_GradientsHelper"})
_ASK_OF_NAN: Final = frozenset({"IsFinite", "IsInf", "IsNan", "Rank", "Shape", "ShapeN", "Size"})
"""Operations that are given NaN on purpose, or do not see the values."""
_CHOICES: Final = frozenset({"Select", "SelectV2"})
_CARRIERS: Final = frozenset(
    {
        "All",
        "Any",
        "BroadcastTo",
        "Cast",
        "ConcatV2",
        "ExpandDims",
        "GatherV2",
        "Identity",
        "Max",
        "Maximum",
        "Mean",
        "Merge",
        "Min",
        "Minimum",
        "Mul",
        "OneHot",
        "Pack",
        "Prod",
        "Reshape",
        "SegmentSum",
        "SegmentSumV2",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Sum",
        "Switch",
        "Tile",
        "Transpose",
        "UnsortedSegmentSum",
    }
)
"""Operations whose result is the outcome of a comparison, counted, combined or in another shape."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where a value may have come from: an instrumented operation's output, or something from outside the step.

    Attributes:
        node: the operation; ``None`` where the value came from outside.
        output: which of its outputs.
        outside: the root graph's placeholder of the value.
    """

    node: Node | None = None
    output: int = 0
    outside: Tensor = None


class Flow:
    """The data flow of a trial that was traced."""

    def __init__(self, probe: Probe, root: Graph) -> None:
        """Prepare.

        Args:
            probe: that was attached while the trial was traced.
            root: the trial's graph.
        """
        self._probe, self._root = probe, root
        self._caller: dict[int, Op] = {}
        self._sources: dict[int, list[Node]] = {}
        # A small tensor from outside is captured as a constant, which stands for an input as a placeholder does.
        self._entries = {
            (id(graph), probe.real(tensor).name): tensor
            for graph in self.graphs
            for tensor in getattr(graph, "inputs", ())
        }
        for graph in self.graphs:
            for op in graph.get_operations():
                for inner in inner_graphs(op):
                    self._caller[id(inner)] = op

    @property
    def graphs(self) -> Sequence[Graph]:
        """Every graph that was traced in the trial."""
        return list(self._probe.graphs.values())

    @property
    def nodes(self) -> Sequence[Node]:
        """Every instrumented operation, in order of creation."""
        return self._probe.nodes

    def node_of(self, op: Op) -> Node | None:
        """Return what is known of an operation."""
        return self._probe.node_of(op)

    def stack(self, op: Op) -> Stack:
        """Return the stack that made an operation, outermost frame first."""
        node = self.node_of(op)
        return stack_of(op, () if node is None else node.creation.calls)

    def name_of_captured(self, value: Tensor) -> str | None:
        """Return what the program calls a tensor that the step captured; ``None`` if it has no name for it."""
        return name_of_captured(self._probe.uses_of_captured(), value)

    def name_of_constant(self, op: Op) -> str | None:
        """Return what the program calls the data that it made a constant of; ``None`` if it has no name for it."""
        return name_of_constant(self._probe.uses(op), constant_of(op))

    def real(self, tensor: Tensor) -> Tensor:
        """Return the tensor that an operation made, where the probe put an identity after it."""
        return self._probe.real(tensor)

    def called_from(self, graph: Graph) -> Op | None:
        """Return the operation of the root graph through which a graph is run; ``None`` for the root itself."""
        caller = None
        while id(graph) in self._caller and graph is not self._root:
            caller = self._caller[id(graph)]
            graph = caller.graph
        return caller

    def places(self, tensor: Tensor) -> list[Place]:
        """Return where a tensor's value may have come from, each place once.

        What lies in a list of tensors (as a loop keeps them) may have come from any of what was put there.
        """
        return list(self._places(tensor, set()))

    def inputs(self, op: Op) -> list[Place]:
        """Return where the inputs of an operation may have come from."""
        seen: set[tuple[int, str]] = set()
        return [place for tensor in op.inputs for place in self._places(tensor, seen)]

    def floating_behind(self, op: Op) -> list[tuple[Tensor, bool]]:
        """Return the floating tensors that an operation depends on, and of each whether directly.

        Behind whole numbers and truth values, as an index is, those are returned that they were made of.
        """
        found: list[tuple[Tensor, bool]] = []
        seen: set[tuple[int, str]] = set()
        waiting = [(tensor, True) for tensor in op.inputs]
        while waiting:
            tensor, is_direct = waiting.pop(0)
            real = self._probe.real(tensor)
            if (id(real.graph), real.name) in seen:
                continue
            seen.add((id(real.graph), real.name))
            if real.dtype.is_floating or real.dtype.is_complex:
                found.append((real, is_direct))
            elif real.dtype not in _HOLDERS:
                waiting += [(one, False) for one in self.one_back(real)]
        return found

    def compared_behind(self, op: Op) -> Iterator[Op]:
        """Yield the comparisons, in the wide sense, whose outcome an operation is given as it is, counted or chosen by.

        Such an operation made truth values or whole numbers of floating numbers. On the way from it stand only
        operations that count, combine or reshape its outcome.
        """
        seen: set[tuple[int, str]] = set()
        waiting = list(op.inputs)
        while waiting:
            real = self._probe.real(waiting.pop(0))
            if (id(real.graph), real.name) in seen or real.dtype in _HOLDERS:
                continue
            seen.add((id(real.graph), real.name))
            if is_floating(real.dtype):
                waiting += self._carried(real)
            elif any(is_floating(given.dtype) for given in real.op.inputs) and not inner_graphs(real.op):
                if real.op.type not in _ASK_OF_NAN:
                    yield real.op
            else:
                waiting += self.one_back(real)

    def _carried(self, tensor: Tensor) -> Sequence[Tensor]:
        op = tensor.op
        if (id(tensor.graph), tensor.name) in self._entries or inner_graphs(op):
            return self.one_back(tensor)
        if op.type in _CHOICES:
            return list(op.inputs[:1])
        return list(op.inputs) if op.type in _CARRIERS else []

    def is_gradients_own(self, op: Op) -> bool:
        """Return whether TensorFlow made an operation while it took gradients, and no function of the user's did."""
        stack = self.stack(op)
        is_inside = any(frame.name in _TAKING_GRADIENTS for frame in stack)
        return is_inside and not has_users_line_within(stack, _TAKING_GRADIENTS)

    def one_back(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return what a tensor is made of, one operation back, in or out of a function or branch if need be."""
        entry, inner = self._entries.get((id(tensor.graph), tensor.name)), inner_graphs(tensor.op)
        if entry is not None:
            return [] if tensor.graph is self._root else self._handed_in(entry)
        return self._returned(tensor.op, inner, tensor.value_index) if inner else list(tensor.op.inputs)

    def writers(self, resource: Tensor) -> Sequence[Op]:
        """Return the operations that write a resource, given by the root graph's placeholder, in order of creation."""
        return self._writers.get(resource.name, ())

    @cached_property
    def _writers(self) -> dict[str, list[Op]]:
        found: dict[str, list[Op]] = {}
        for graph in self.graphs:
            for op, handle in writes(graph.get_operations()):
                source = self.resource(handle)
                if source is not None:
                    found.setdefault(source.name, []).append(op)
        return found

    def sources(self, node: Node) -> Sequence[Node]:
        """Return the operations that one may have its inputs from, through variables written in the step too."""
        if node.number not in self._sources:
            self._sources[node.number] = self._sources_of(node)
        return self._sources[node.number]

    def _sources_of(self, node: Node) -> list[Node]:
        places = self.inputs(node.op)
        if node.op.type in READS:
            resource = self.resource(node.op.inputs[0])
            written = () if resource is None else self.writers(resource)
            earlier = [writer for op in written if (writer := self.node_of(op)) and writer.number < node.number]
            return [*earlier, *(place.node for place in places if place.node is not None)]
        return [place.node for place in places if place.node is not None]

    def is_inside_loop(self, graph: Graph) -> bool:
        """Return whether a graph is a loop's or a dataset's, or is called from one."""
        while id(graph) in self._caller:
            caller = self._caller[id(graph)]
            if caller.type in _LOOPS:
                return True
            graph = caller.graph
        # What a dataset calls is a function that nothing in the step's own graph calls.
        return graph is not self._root

    def resource(self, tensor: Tensor) -> Tensor | None:
        """Return the root graph's placeholder of a resource, such as a variable; ``None`` if it is not from outside."""
        return next((place.outside for place in self.places(tensor) if place.outside is not None), None)

    def _places(self, tensor: Tensor, seen: set[tuple[int, str]]) -> Iterator[Place]:
        waiting = [tensor]
        while waiting:
            real = self._probe.real(waiting.pop())
            if (id(real.graph), real.name) in seen:
                continue
            seen.add((id(real.graph), real.name))
            node, entry = self._probe.node_of(real.op), self._entries.get((id(real.graph), real.name))
            if entry is not None and real.graph is self._root:
                yield Place(outside=entry)
            elif entry is not None:
                waiting += reversed(self._handed_in(entry))
            elif node is not None and real.dtype not in _HOLDERS and not self._is_looked_into(real.op):
                yield Place(node, real.value_index)
            else:
                waiting += reversed(self._behind(real))

    def _is_looked_into(self, op: Op) -> bool:
        return any(id(graph) in self._probe.graphs for graph in inner_graphs(op))

    def _behind(self, tensor: Tensor) -> Sequence[Tensor]:
        op = tensor.op
        inner = inner_graphs(op)
        if inner:
            return self._returned(op, inner, tensor.value_index)
        return [given for given in op.inputs if given.dtype in _HOLDERS or given.dtype.is_floating]

    def _handed_in(self, placeholder: Tensor) -> Sequence[Tensor]:
        graph = placeholder.graph
        caller = self._caller.get(id(graph))
        at = next((place for place, tensor in enumerate(graph.inputs) if tensor.name == placeholder.name), None)
        if caller is None or at is None:
            return []
        if caller.type in _LOOPS:
            body = body_graph(caller)
            return [*body.outputs[at : at + 1], *caller.inputs[at : at + 1]]
        shift = 0 if caller.type in _FUNCTIONS else 1
        return list(caller.inputs[at + shift : at + shift + 1])

    def _returned(self, op: Op, inner: Sequence[Graph], at: int) -> Sequence[Tensor]:
        if op.type in _LOOPS:
            return [*body_graph(op).outputs[at : at + 1], *op.inputs[at : at + 1]]
        return [tensor for graph in inner for tensor in graph.outputs[at : at + 1]]
