"""Data flow: which operations a value may come from, across branches, loops, functions, tensor lists and variables.

Inside one graph, a tensor knows the operation that made it. Between graphs, a
:class:`~tb_nanwatch.watch.replay.boundaries.Boundaries` knows the connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.replay.boundaries import HOLDERS, Boundaries, key_of
from tb_nanwatch.watch.replay.creation import Forward
from tb_nanwatch.watch.replay.probe import Node, Probe, is_floating
from tb_nanwatch.watch.replay.source_lines import Stack, has_users_line_within, stack_of, users_line
from tb_nanwatch.watch.tf_internals import inner_graphs
from tb_nanwatch.watch.variables import READS

TAKING_GRADIENTS: Final = frozenset({"imperative_grad", "_GradientsHelper"})
"""The functions of TensorFlow that take gradients."""
_ASK_OF_NAN: Final = frozenset({"IsFinite", "IsInf", "IsNan", "Rank", "Shape", "ShapeN", "Size"})
"""Operations that get NaN on purpose, or do not use the values."""
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
"""Operations whose result is the outcome of a comparison, counted, combined or reshaped."""
_SUMS: Final = frozenset({"Add", "AddN", "AddV2"})


@dataclass(frozen=True, eq=False)
class Place:
    """Where a value may come from: an output of an operation that reports, or the outside of the step.

    Attributes:
        node: the operation; ``None`` where the value came from outside.
        output: which of its outputs.
        outside: the root graph's tensor for a value from outside: of an argument, a captured tensor or a variable.
    """

    node: Node | None = None
    output: int = 0
    outside: Tensor = None


class Flow:
    """The data flow of a step's trace."""

    def __init__(self, probe: Probe, boundaries: Boundaries) -> None:
        """Connect the operations that report with the boundaries between their graphs."""
        self._probe, self.boundaries = probe, boundaries
        self._sources: dict[int, list[Node]] = {}

    @property
    def graphs(self) -> Sequence[Graph]:
        """Every graph of the trace."""
        return self._probe.graphs

    @property
    def nodes(self) -> Sequence[Node]:
        """Every operation that reports, in order of creation."""
        return self._probe.nodes

    def node_of(self, op: Op) -> Node | None:
        """Return the node of an operation; ``None`` if it does not report."""
        return self._probe.node_of(op)

    def stack(self, op: Op) -> Stack:
        """Return the stack that made an operation, outermost frame first."""
        node = self.node_of(op)
        return stack_of(op, () if node is None else node.creation.calls)

    def original(self, tensor: Tensor) -> Tensor:
        """Return the tensor that the program made, where the probe put a replacement after it."""
        return self._probe.original(tensor)

    def places(self, tensor: Tensor) -> list[Place]:
        """Return where a tensor's value may come from, each place once.

        A value in a tensor list, as a loop keeps it, may come from any value that was put there.
        """
        return list(self._places(tensor, set()))

    def inputs(self, op: Op) -> list[Place]:
        """Return where the inputs of an operation may come from."""
        seen: set[tuple[int, str]] = set()
        return [place for tensor in op.inputs for place in self._places(tensor, seen)]

    def resource(self, tensor: Tensor) -> Tensor | None:
        """Return the outside tensor of a resource, such as a variable; ``None`` if it is not from outside."""
        return next((place.outside for place in self.places(tensor) if place.outside is not None), None)

    def one_back(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the tensors that a tensor is made of, one operation or one boundary back."""
        if self.boundaries.is_at(tensor):
            return [] if self.boundaries.outside(tensor) is not None else self.boundaries.across(tensor)
        return list(tensor.op.inputs)

    def floating_behind(self, op: Op) -> list[tuple[Tensor, bool]]:
        """Return the floating tensors that an operation depends on, each with whether it is a direct input.

        Behind an integer or a truth value, such as an index, these are the floating tensors that it was made of.
        """
        found: list[tuple[Tensor, bool]] = []
        seen: set[tuple[int, str]] = set()
        waiting = [(tensor, True) for tensor in op.inputs]
        while waiting:
            given, is_direct = waiting.pop(0)
            tensor = self.original(given)
            if key_of(tensor) in seen:
                continue
            seen.add(key_of(tensor))
            if is_floating(tensor.dtype):
                found.append((tensor, is_direct))
            elif tensor.dtype not in HOLDERS:
                waiting += [(before, False) for before in self.one_back(tensor)]
        return found

    def compared_behind(self, op: Op) -> Iterator[Op]:
        """Yield the comparisons whose outcome an operation gets unchanged, counted, or as a choice.

        A comparison here is any operation that made truth values or integers from floating numbers. Between it and
        the operation stand only operations that count, combine or reshape its outcome.
        """
        seen: set[tuple[int, str]] = set()
        waiting = list(op.inputs)
        while waiting:
            tensor = self.original(waiting.pop(0))
            if key_of(tensor) in seen or tensor.dtype in HOLDERS:
                continue
            seen.add(key_of(tensor))
            if is_floating(tensor.dtype):
                waiting += self._carried(tensor)
            elif any(is_floating(given.dtype) for given in tensor.op.inputs) and not inner_graphs(tensor.op):
                if tensor.op.type not in _ASK_OF_NAN:
                    yield tensor.op
            else:
                waiting += self.one_back(tensor)

    def _carried(self, tensor: Tensor) -> Sequence[Tensor]:
        op = tensor.op
        if self.boundaries.is_at(tensor):
            return self.one_back(tensor)
        if op.type in _CHOICES:
            return list(op.inputs[:1])
        return list(op.inputs) if op.type in _CARRIERS else []

    def is_gradients_own(self, op: Op) -> bool:
        """Return whether TensorFlow made an operation while it took gradients, and no function of the user did."""
        stack = self.stack(op)
        is_inside = any(frame.name in TAKING_GRADIENTS for frame in stack)
        return is_inside and not has_users_line_within(stack, TAKING_GRADIENTS)

    def writers(self, resource: Tensor) -> Sequence[Op]:
        """Return the operations that write a variable, given by its outside tensor, in order of creation."""
        return self._writers.get(resource.name, ())

    @cached_property
    def _writers(self) -> dict[str, list[Op]]:
        found: dict[str, list[Op]] = {}
        for graph in self.graphs:
            for op in graph.get_operations():
                for resource in self.written_by(op):
                    found.setdefault(resource.name, []).append(op)
        return found

    def written_by(self, op: Op) -> list[Tensor]:
        """Return the outside tensors of the variables that an operation writes."""
        resources = [self.resource(handle) for handle in self.boundaries.written_by(op)]
        return [resource for resource in resources if resource is not None]

    def sources(self, node: Node) -> Sequence[Node]:
        """Return the operations that an operation's inputs may come from, also through variables that they wrote."""
        if node.number not in self._sources:
            self._sources[node.number] = self._sources_of(node)
        return self._sources[node.number]

    def _sources_of(self, node: Node) -> list[Node]:
        direct = [place.node for place in self.inputs(node.op) if place.node is not None]
        if node.op.type not in READS:
            return direct
        resource = self.resource(node.op.inputs[0])
        written = () if resource is None else self.writers(resource)
        earlier = [writer for op in written if (writer := self.node_of(op)) and writer.number < node.number]
        return [*earlier, *direct]

    def _places(self, tensor: Tensor, seen: set[tuple[int, str]]) -> Iterator[Place]:
        waiting = [tensor]
        while waiting:
            current = self.original(waiting.pop())
            if key_of(current) in seen:
                continue
            seen.add(key_of(current))
            outside, node = self.boundaries.outside(current), self.node_of(current.op)
            if outside is not None:
                yield Place(outside=outside)
            elif node is not None and current.dtype not in HOLDERS and not self.boundaries.is_crossed_at(current):
                yield Place(node, current.value_index)
            elif self.boundaries.is_at(current):
                waiting += reversed(self.boundaries.across(current))
            else:
                waiting += reversed([given for given in current.op.inputs if _can_pass_on(given)])

    def forward_op(self, node: Node) -> Op | None:
        """Return the forward operation whose gradient an operation belongs to, also for a gradient of a gradient.

        Args:
            node: the operation.

        Returns:
            ``None`` for an operation of the forward pass, and where the forward operation is not known.
        """
        forward = node.creation.forward
        if forward is None:
            is_sum = node.creation.in_gradient and node.op.type in _SUMS
            return self._differentiated(node) if is_sum else None
        op = self._find_forward(forward)
        if op is None:
            return None
        found = self.node_of(op)
        return (self.forward_op(found) if found else None) or op

    def _find_forward(self, forward: Forward) -> Op | None:
        """Find a forward operation by the facts of its gradient; ``None`` unless all that fit stand on one line."""
        if forward.output is not None:
            return self.original(forward.output).op
        fitting = [node.op for node in self.nodes if node.op.type == forward.type and self._fits(node.op, forward)]
        lines = {users_line(self.stack(op)) for op in fitting}
        return fitting[0] if len(lines) == 1 else None

    def _fits(self, op: Op, forward: Forward) -> bool:
        # A function that opens a scope of its own names its one operation after it.
        if forward.scope.rstrip("/") not in (op.name, op.name.rpartition("/")[0]):
            return False
        pairs = zip(op.inputs, forward.inputs, strict=False)
        return all(known is None or self.original(known).name == self.original(given).name for given, known in pairs)

    def _differentiated(self, node: Node) -> Op | None:
        """Return the operation that a sum of gradients differentiates: it made the input that all its users share."""
        parts = [place.node for place in self.inputs(node.op) if place.node is not None]
        forwards = [
            op
            for part in parts
            if part.creation.forward and (op := self._find_forward(part.creation.forward)) is not None
        ]
        if len(forwards) < len(parts) or not forwards:
            return None
        inputs = [{self.original(tensor).name: tensor for tensor in op.inputs} for op in forwards]
        common = set.intersection(*(set(names) for names in inputs))
        return self.original(inputs[0][common.pop()]).op if len(common) == 1 else None


def _can_pass_on(tensor: Tensor) -> bool:
    """Return whether a tensor holds floating numbers, or may hold them as a list or variable does."""
    return bool(tensor.dtype in HOLDERS or tensor.dtype.is_floating)
