"""From the walk's visits to the records of a replay: a chain of links from each origin to what it made non-finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from tb_nanwatch.numerics.finiteness import bad_elements, count_nonfinite
from tb_nanwatch.schema.records import Entry, EntryWay, Kind, Link, Operand, Operation, Source
from tb_nanwatch.watch.graphs import Op
from tb_nanwatch.watch.replay.execution import Range
from tb_nanwatch.watch.replay.flow import TAKING_GRADIENTS, Flow
from tb_nanwatch.watch.replay.names import Names, owner_of
from tb_nanwatch.watch.replay.origin import VARIABLE_PHASES, Origins
from tb_nanwatch.watch.replay.phases import Phases
from tb_nanwatch.watch.replay.probe import Node, constant_of
from tb_nanwatch.watch.replay.source_lines import has_users_line_within, shown_frames, users_line
from tb_nanwatch.watch.replay.step_trace import Chains, Stage, Stages, StepTrace
from tb_nanwatch.watch.replay.walk import Visit, Walk

_GLUE: Final = frozenset(
    {
        "Identity",
        "IdentityN",
        "ReadVariableOp",
        "StopGradient",
        "TensorListFromTensor",
        "TensorListGetItem",
        "TensorListPopBack",
        "TensorListStack",
    }
)
"""Operations that only connect others, so that a chain leaves them out."""
_WITHOUT_SAMPLES: Final = frozenset({"clip", "update", "state"})
"""Phases that work on tensors with as many rows as the weights."""
_MOST_ORIGINS: Final = 8
_MOST_HOPS: Final = 64
_MOST_ELEMENTS: Final = 8


def chains_of(walk: Walk, updates: Sequence[tuple[Stages, Origins]]) -> Chains:
    """Walk back from all tensors in question, and return a chain from each origin, in order of data flow.

    All chains of one update come before those of the next update.

    Args:
        walk: a walk through a trace that has run.
        updates: for each update of the step in order, the tensors in question and the judge of its origins.
    """
    found: dict[Any, tuple[Origins, Visit, Stage]] = {}
    samples: dict[Any, tuple[int, ...]] = {}
    for stages, origins in updates:
        for stage, sinks in stages:
            for sink in sinks:
                # Only the paths to this sink count here: an infinity may become something else on its way to another.
                for origin in [origin for origin in walk.back_from(sink) if origin.is_origin]:
                    first = origins.named_first(origin)
                    found.setdefault(first.key, (origins, first, stage))
            # A sample that a mask kept from the loss may still reach a gradient.
            samples |= {key: judge.samples(first) for key, (judge, first, _) in found.items() if key not in samples}
    ordered = sorted(found.values(), key=lambda entry: entry[0].order(entry[1], entry[2]))
    return tuple(
        Links(judge).chain(first, stage, samples[first.key]) for judge, first, stage in ordered[:_MOST_ORIGINS]
    )


@dataclass(frozen=True, eq=False)
class Links:
    """Turns the visits of a walk into links.

    Attributes:
        origins: judges the origins of one update.
    """

    origins: Origins

    def chain(self, origin: Visit, stage: Stage, samples: tuple[int, ...]) -> tuple[Link, ...]:
        """Return the links from an origin to what went bad, without the glue between operations.

        Args:
            origin: the visit to name first.
            stage: the stage of the tensor that the walk began at.
            samples: the origin's bad samples.
        """
        path = list(origin.path())
        shown = _without_rounds([visit for visit in path if visit is path[0] or not _is_glue(visit)])[:_MOST_HOPS]
        first, *others = (self._link(visit, stage, is_first=visit is path[0]) for visit in shown)
        return replace(first, samples=() if first.phase in _WITHOUT_SAMPLES else samples), *others

    @property
    def _phases(self) -> Phases:
        return self.origins.phases

    @property
    def _names(self) -> Names:
        return self.origins.names

    @property
    def _trace(self) -> StepTrace:
        return self.origins.names.trace

    @property
    def _flow(self) -> Flow:
        return self._trace.flow

    def _link(self, visit: Visit, stage: Stage, *, is_first: bool) -> Link:
        if visit.node is None or visit.execution is None:
            return self._from_outside(visit, stage)
        node, execution, phase = visit.node, visit.execution, self._phases.phase_of(visit, stage)
        counts = execution.outputs.get(visit.output) or next(iter(execution.outputs.values()), None)
        if phase == "input":
            link = self._constant(visit, node.op)
        else:
            forward = self._flow.forward_op(node)
            variable = self._variable(visit, stage, forward)
            link = Link(
                op=Operation(node.op.type, node.op.name),
                phase=phase,
                layer=owner_of(variable) if phase == "update" else self._names.layer(node, forward),
                kind=(counts.kind if counts else None) or _kind_of_inputs(execution.ranges) or _kind_of_result(visit),
                source=self._source(node, forward),
                variable=variable,
                tensor=self._watched_as(node),
                counts=counts,
                samples=() if phase in _WITHOUT_SAMPLES else self.origins.samples_of_output(node, execution),
                inputs=tuple(self._operands(node, execution.ranges)),
                stack=shown_frames(self._flow.stack(node.op)) if is_first else (),
            )
        if node.op in self._phases.outside_step:
            link = replace(link, variable=next(iter(self._written_by(node.op)), None))
        # The first operation stands somewhere inside, where nothing reports.
        return replace(link, op=None, inputs=()) if is_first and self._trace.hides_operations(node.op) else link

    def _source(self, node: Node, forward: Op | None) -> Source | None:
        stack = self._flow.stack(node.op)
        if not node.creation.in_gradient or has_users_line_within(stack, TAKING_GRADIENTS):
            return users_line(stack)
        # The line that asks for all gradients says nothing about this one.
        return None if forward is None else users_line(self._flow.stack(forward))

    def _watched_as(self, node: Node) -> str | None:
        """Return the name under which the program watches an operation's output; ``None`` if it does not."""
        tensors = self._trace.tensors
        return next((name for name, tensor in tensors.items() if self._flow.original(tensor).op is node.op), None)

    def _from_outside(self, visit: Visit, stage: Stage) -> Link:
        outside = visit.outside
        phase, value = self._phases.phase_of(visit, stage), self._trace.value(outside)
        if phase in VARIABLE_PHASES:
            variable, counts = self._names.variable(outside), count_nonfinite(value)
            return Link(None, phase, owner_of(variable), counts.kind or "nan", None, variable=variable, counts=counts)
        argument = self._trace.inputs.arguments.get(outside.name)
        if argument is not None:
            link = replace(_entered(value, "argument"), phase=phase, tensor=argument)
            return self._with_variable_of_gradient(link, argument)
        name = self._trace.name_of_captured(outside)
        return self._brought_in(_entered(value, "captured"), name, user=visit.towards, op=outside.op)

    def _with_variable_of_gradient(self, link: Link, argument: str) -> Link:
        place = self._trace.inputs.gradients.get(argument)
        column = None if place is None else self._names.column_of(self._phases.update.variables[place])
        if column is None:
            return link
        variable = self._trace.watched.described[column]
        # The rows of a gradient are no samples.
        return replace(link, variable=variable.name, layer=variable.layer, samples=())

    def _constant(self, visit: Visit, op: Op) -> Link:
        value, numbers = constant_of(op), self._names.numbers_in(op)
        if numbers:
            return replace(_entered(value, "argument"), tensor=numbers[0] if len(numbers) == 1 else None)
        return self._brought_in(_entered(value, "constant"), self._trace.name_of_constant(op), user=visit, op=op)

    def _brought_in(self, link: Link, name: str | None, *, user: Visit | None, op: Op) -> Link:
        """Add to a link where the program brought the value into the step.

        Args:
            link: the link of the value.
            name: the program's name for it.
            user: the first operation on its path; ``None`` if the value itself is what went bad.
            op: the operation that stands for it in the graph.
        """
        node = None if user is None else user.node
        forward = None if node is None else self._flow.forward_op(node)
        stack = self._flow.stack(op if node is None else node.op)
        return replace(
            link,
            tensor=name,
            source=users_line(stack) if node is None else self._source(node, forward),
            layer=None if node is None else self._names.layer(node, forward),
            stack=shown_frames(stack),
        )

    def _variable(self, visit: Visit, stage: Stage, forward: Op | None) -> str | None:
        """Return the variable that an operation works for: it updates it, or it is a part of its gradient."""
        phase = self._phases.phase_of(visit, stage)
        if phase == "update":
            return self._updated(visit)
        if phase not in ("backward", "clip"):
            return None
        used = set() if forward is None else self._names.columns_used(forward)
        place = self._phases.place_of_variable(visit, stage)
        column = None if place is None else self._names.column_of(self._phases.update.variables[place])
        column = next(iter(used)) if len(used) == 1 else column
        return None if column is None else self._trace.watched.described[column].name

    def _updated(self, visit: Visit) -> str | None:
        """Return the variable that an operation of the update works for: the first that its path writes.

        A value that serves all variables, such as a learning rate, has the shape of none of them.
        """
        path = [towards.node.op for towards in visit.path() if towards.node is not None]
        written = [self._names.column(resource) for op in path for resource in self._flow.written_by(op)]
        columns = [column for column in written if column is not None]
        if not columns or visit.node is None:
            return None
        # If the path passes several updates, the operation works for the first.
        variable = self._trace.watched.described[columns[0]]
        shape = visit.node.op.outputs[visit.output].shape if visit.node.op.outputs else None
        return variable.name if shape is None or tuple(shape) == variable.shape else None

    def _written_by(self, op: Op) -> Iterator[str | None]:
        return (self._names.variable(resource) for resource in self._flow.written_by(op))

    def _operands(self, node: Node, ranges: Mapping[int, Range]) -> Iterator[Operand]:
        for place, found in sorted(ranges.items()):
            name = self._names.operand(node.op.inputs[place])
            yield Operand(name, found.dtype, found.shape, found.counts, found.min, found.max, found.zeros)


def _entered(value: Any, way: EntryWay) -> Link:
    array = np.asarray(value)
    counts = count_nonfinite(array)
    return Link(
        op=None,
        phase="input",
        layer=None,
        kind=counts.kind or "nan",
        source=None,
        counts=counts,
        entry=Entry(way, array.shape, bad_elements(array, limit=_MOST_ELEMENTS)),
    )


def _kind_of_inputs(ranges: Mapping[int, Range]) -> Kind | None:
    return next((found.counts.kind for found in ranges.values() if found.counts.kind), None)


def _kind_of_result(visit: Visit) -> Kind:
    """Return the kind that the next read of a variable shows; the write itself has no output."""
    seen = (counts for hop in visit.path() if hop.execution for counts in hop.execution.outputs.values())
    return next((counts.kind for counts in seen if counts.kind), "nan")


def _is_glue(visit: Visit) -> bool:
    return visit.node is not None and visit.node.op.type in _GLUE


def _without_rounds(path: Sequence[Visit]) -> list[Visit]:
    """Leave out the rounds of a loop: if an operation comes again, drop all visits up to its last time."""
    shown: list[Visit] = []
    for visit in path:
        number = -1 if visit.node is None else visit.node.number
        at = next((place for place, other in enumerate(shown) if other.node and other.node.number == number), None)
        if at is not None:
            del shown[at + 1 :]
        else:
            shown.append(visit)
    return shown
