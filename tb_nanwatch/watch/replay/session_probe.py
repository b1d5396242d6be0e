"""Looking at the operations of a graph that is there already, as a session runs them, and the flow of their data.

A report stands beside an operation, and not between it and whoever reads it: it changes nothing of what runs. Loops
and functions are looked at from outside; a branch of TensorFlow 1 is part of its graph, and a report in the one that
is not taken does not run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.drivers.session_v1.intake import source_read
from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.replay.creation import Creation, Forward
from tb_nanwatch.watch.replay.flow import Flow, Place
from tb_nanwatch.watch.replay.lines import stack_of
from tb_nanwatch.watch.replay.probe import Node, Probe
from tb_nanwatch.watch.replay.walk import Visit, Walk
from tb_nanwatch.watch.tf_internals import entered_values, forward_operation, is_in_loop
from tb_nanwatch.watch.variables import HANDLES, REFERENCES, variable_writes

SOURCES: Final = HANDLES | REFERENCES
EXITS: Final = frozenset({"Exit", "RefExit"})
_ROUTES: Final = frozenset(
    {"Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter", "NextIteration", "RefNextIteration", "LoopCond"}
)
_TAKING_GRADIENTS: Final = "_GradientsHelper"
_HOLDERS: Final = (tf.variant, tf.resource)


class GraphProbe(Probe):
    """A probe of a graph that is run by a session."""

    def look_at(self, graph: Graph, operations: Iterable[Op]) -> list[Op]:
        """Put a report beside each operation that makes floating numbers or writes a variable.

        Args:
            graph: not finalized.
            operations: in order of creation.

        Returns:
            The reports.
        """
        self.graphs[id(graph)] = graph
        seen = [op for op in operations if _is_looked_at(op)]
        with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch"):
            return [self._reported(op, _creation_of(op), hides_inputs=op.type in EXITS) for op in seen]


class GraphFlow(Flow):
    """The data flow of a graph that a session runs."""

    def __init__(self, probe: GraphProbe, root: Graph, fed: Collection[str]) -> None:
        """Prepare.

        Args:
            probe: that looks at it.
            root: the graph.
            fed: names of the tensors that are fed.
        """
        self._fed = frozenset(fed)
        super().__init__(probe, root)

    @cached_property
    def _writers(self) -> dict[str, list[Op]]:
        found: dict[str, list[Op]] = {}
        for op, source in variable_writes(node.op for node in self.nodes):
            found.setdefault(source.name, []).append(op)
        return found

    def _places(self, tensor: Tensor, seen: set[tuple[int, str]]) -> Iterator[Place]:
        waiting = [tensor]
        while waiting:
            one = waiting.pop()
            if (id(one.graph), one.name) in seen:
                continue
            seen.add((id(one.graph), one.name))
            node = self.node_of(one.op)
            if one.name in self._fed or one.op.type in SOURCES:
                yield Place(outside=one)
            elif node is not None and one.dtype not in _HOLDERS:
                yield Place(node, one.value_index)
            else:
                waiting += reversed([given for given in one.op.inputs if given.dtype.is_floating or _holds(given)])


@dataclass(eq=False)
class GraphWalk(Walk):
    """A walk that goes past a loop of TensorFlow 1 where it was given something bad.

    Attributes:
        written: by name of a variable's source, the operations that wrote something bad to it in the same run, each
            with its one look; they are no part of the step.
    """

    written: Mapping[str, Sequence[Node]] = field(default_factory=dict)

    def _before(self, visit: Visit) -> Iterable[Visit]:
        if visit.node is None:
            return super()._before(visit)
        if any(visit.node in writers for writers in self.written.values()):
            bad = [visit.node.op.inputs[place] for place in visit.node.looks[0].inputs]
            return self._bad_sources(bad, moment=visit.moment, towards=visit)
        if visit.node.op.type not in EXITS:
            reads = source_read(visit.node.op)
            return super()._before(visit) if reads is None else self._of_variable(visit, reads, visit.moment)
        entered = entered_values(visit.node.op)
        return self._bad_sources(
            [value for value in entered if value.dtype.is_floating], moment=visit.moment, towards=visit
        )

    def _of_variable(self, visit: Visit, handle: Tensor, moment: float) -> list[Visit]:
        writers = self.written.get(handle.name, ())
        if writers and self.is_bad(handle):
            return [Visit(node, node.looks[0], 0, None, visit) for node in writers[-1:]]
        return super()._of_variable(visit, handle, moment)


def _holds(tensor: Tensor) -> bool:
    return tensor.dtype in _HOLDERS


def _is_looked_at(op: Op) -> bool:
    makes_numbers = any(output.dtype.is_floating or output.dtype.is_complex for output in op.outputs)
    is_seen = makes_numbers or any(True for _ in variable_writes([op]))
    return is_seen and op.type not in _ROUTES | SOURCES and not is_in_loop(op)


def _creation_of(op: Op) -> Creation:
    forward: Any = forward_operation(op)
    of = None if forward is None or not forward.outputs else Forward(forward.outputs[0], forward.type)
    frames: Sequence[Any] = stack_of(op)
    return Creation(of, of is not None or any(frame.name == _TAKING_GRADIENTS for frame in frames))
