"""From the walk's visits to what is recorded of them: phase, layer, line, ranges."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from tb_nanwatch.numerics.finiteness import bad_elements, bad_samples, count_nonfinite
from tb_nanwatch.schema.records import PHASES, Entry, EntryWay, Kind, Link, Operand, Operation, Source
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.forward import forward_op
from tb_nanwatch.watch.replay.lines import has_users_line_within, users_line, whole
from tb_nanwatch.watch.replay.look import Look, Range
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.phases import Phases, Stage
from tb_nanwatch.watch.replay.probe import Node, constant_of
from tb_nanwatch.watch.replay.rows import are_samples
from tb_nanwatch.watch.replay.walk import Visit, Walk
from tb_nanwatch.watch.variables import handle_of, writes

Op = Any
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
_TAKING_GRADIENTS: Final = frozenset({"imperative_grad", "_GradientsHelper"})
_OF_VARIABLES: Final = frozenset({"weights", "state"})
_OF_WEIGHTS: Final = frozenset({"clip", "update", "state"})
"""Phases that work on tensors as long as the weights are."""
_NUMBERED: Final = re.compile(r"_\d+$")
_MOST_HOPS: Final = 64
_MOST_ELEMENTS: Final = 8


@dataclass(frozen=True, eq=False)
class Description:
    """Turns visits of one trial into links.

    Attributes:
        names: of the trial's things.
        phases: of its operations.
        walk: that came to what is described.
    """

    names: Names
    phases: Phases
    walk: Walk

    def chain(self, origin: Visit, stage: Stage, samples: tuple[int, ...]) -> tuple[Link, ...]:
        """Return the links from an origin to what went bad; glue between operations is left out.

        Args:
            origin: as :meth:`begin` returns it.
            stage: of what the walk that came to it began at.
            samples: of the origin, see :meth:`samples`.
        """
        way = list(origin.way())
        shown = _without_rounds([visit for visit in way if visit is way[0] or not _is_glue(visit)])[:_MOST_HOPS]
        first, *others = (self._link(visit, stage, is_first=visit is way[0]) for visit in shown)
        return replace(first, samples=() if first.phase in _OF_WEIGHTS else samples), *others

    def samples(self, origin: Visit) -> tuple[int, ...]:
        """Return the bad samples of an origin that came through to what went bad, as far as the walk has gone."""
        size = self._batch_size
        if origin.node is None and self.phases.of(origin, "forward") != "input":
            return ()
        if origin.node is not None and origin.look is not None and origin.node.op.type != "Const":
            own = self._samples_of_output(origin.node, origin.look)
        elif origin.node is None and self.names.is_argument(origin.outside):
            own = self.names.samples(origin.outside)
        else:
            own = self._samples_of_entry(origin, size)
        return self.walk.samples_reaching(origin, own, size) if own else ()

    def _samples_of_output(self, node: Node, look: Look) -> tuple[int, ...]:
        """Return the bad samples of an operation's output, if its rows are samples and not a weight's."""
        size = self._batch_size
        has_samples = look.leading == size and bool(look.samples) and are_samples(node.op, size, self.names)
        return look.samples if has_samples else ()

    def _samples_of_entry(self, origin: Visit, size: int) -> tuple[int, ...]:
        """Return the bad samples of a captured tensor or a constant, if its leading dimension is the batch."""
        value = np.asarray(self.names.value(origin.outside) if origin.node is None else constant_of(origin.node.op))
        own = bad_samples(value) if value.ndim and len(value) == size else ()
        return own if self.walk.works_by_samples(origin, own, size) else ()

    def begin(self, origin: Visit) -> Visit:
        """Return what is to be named first: an origin, or of an infinity that is meant, where it became NaN."""
        return (self.walk.first_nan(origin) if self._is_meant(origin) else None) or origin

    def place(self, origin: Visit, stage: Stage) -> tuple[int, int, int, int]:
        """Return what origins are ordered by: the update, the phase, arguments first, then the order of creation.

        Variables that were bad as the step began come before all updates.
        """
        phase = self.phases.of(origin, stage)
        if origin.node is not None:
            return self.phases.update(origin), PHASES.index(phase), 1, origin.node.number
        order = [*self.names.arguments, origin.outside.name].index(origin.outside.name)
        update = -1 if phase in _OF_VARIABLES else self.phases.update(origin)
        return update, PHASES.index(phase), 0, order

    def _is_meant(self, origin: Visit) -> bool:
        """Return whether an origin is an infinity that the program holds, as masks do: not that is wrong with it."""
        if origin.node is not None:
            return bool(origin.node.op.type == "Const") and not origin.has_nan
        is_captured = self.phases.of(origin, "forward") == "input" and origin.outside.name not in self.names.arguments
        return is_captured and not np.isnan(self.names.value(origin.outside)).any()

    def _link(self, visit: Visit, stage: Stage, *, is_first: bool) -> Link:
        if visit.node is None or visit.look is None:
            return self._from_outside(visit, stage)
        node, look, phase = visit.node, visit.look, self.phases.of(visit, stage)
        counts = look.outputs.get(visit.output) or next(iter(look.outputs.values()), None)
        if phase == "input":
            return self._constant(visit, node.op)
        forward = forward_op(self._flow, node)
        layer, variable = self._layer(node, forward), self._variable(visit, stage, forward)
        if phase == "update":
            layer = _owner_of(variable)
        return Link(
            op=Operation(node.op.type, node.op.name),
            phase=phase,
            layer=layer,
            kind=(counts.kind if counts else None) or _kind_of_inputs(look.ranges) or _kind_of_result(visit),
            source=self._source(node, forward),
            variable=variable,
            tensor=self._watched_as(node),
            counts=counts,
            samples=() if phase in _OF_WEIGHTS else self._samples_of_output(node, look),
            inputs=tuple(self._operands(node, look.ranges)),
            stack=whole(self._flow.stack(node.op)) if is_first else (),
        )

    def _source(self, node: Node, forward: Op | None) -> Source | None:
        stack = self._flow.stack(node.op)
        if not node.creation.in_gradient or has_users_line_within(stack, _TAKING_GRADIENTS):
            return users_line(stack)
        # The line that asks for all gradients tells nothing about this one.
        return None if forward is None else users_line(self._flow.stack(forward))

    @property
    def _flow(self) -> Flow:
        return self.names.traced.flow

    def _watched_as(self, node: Node) -> str | None:
        """Return under which name an operation's output is watched, if it is."""
        tensors = self.names.traced.trial.tensors
        return next((name for name, tensor in tensors.items() if self._flow.real(tensor).op is node.op), None)

    def _from_outside(self, visit: Visit, stage: Stage) -> Link:
        phase, value = self.phases.of(visit, stage), self.names.value(visit.outside)
        if phase in _OF_VARIABLES:
            variable, counts = self.names.variable(visit.outside), count_nonfinite(value)
            return Link(None, phase, _owner_of(variable), counts.kind or "nan", None, variable=variable, counts=counts)
        argument = self.names.arguments.get(visit.outside.name)
        if argument is not None:
            return replace(_entered(value, "argument"), phase=phase, tensor=argument)
        name = self.names.captured(visit.outside)
        return self._brought(_entered(value, "captured"), name, user=visit.towards, op=visit.outside.op)

    def _constant(self, visit: Visit, op: Op) -> Link:
        value, numbers = constant_of(op), self.names.numbers_in(op)
        if numbers:
            return replace(_entered(value, "argument"), tensor=numbers[0] if len(numbers) == 1 else None)
        return self._brought(_entered(value, "constant"), self.names.constant(op), user=visit, op=op)

    def _brought(self, link: Link, name: str | None, *, user: Visit | None, op: Op) -> Link:
        """Add to a link where the program brought the value into the step.

        Args:
            link: of the value.
            name: that the program has for it.
            user: the first operation on its way; ``None`` where it is itself what went bad.
            op: that stands for it in the graph.
        """
        node = None if user is None else user.node
        forward = None if node is None else forward_op(self._flow, node)
        stack = self._flow.stack(op if node is None else node.op)
        return replace(
            link,
            tensor=name,
            source=users_line(stack) if node is None else self._source(node, forward),
            layer=None if node is None else self._layer(node, forward),
            stack=whole(stack),
        )

    def _variable(self, visit: Visit, stage: Stage, forward: Op | None) -> str | None:
        """Return the variable that an operation works for: that it updates, or whose gradient it is a part of."""
        phase = self.phases.of(visit, stage)
        if phase == "update":
            return self._updated(visit)
        if phase not in ("backward", "clip"):
            return None
        used = set() if forward is None else self.names.columns_used(forward)
        place = self.phases.variable(visit, stage)
        column = None if place is None else self.names.column(handle_of(self.phases.given.variables[place]))
        column = next(iter(used)) if len(used) == 1 else column
        return None if column is None else self.names.described[column].name

    def _updated(self, visit: Visit) -> str | None:
        """Return the variable that an operation of the update works for: the one that is written with what it made.

        What is made once for all variables, such as a learning rate, has not the shape of any.
        """
        flow = self.names.traced.flow
        written = [
            self.names.column(self.names.traced.fed[handle.name])
            for towards in visit.way()
            if towards.node is not None
            for _, placeholder in writes([towards.node.op])
            if (handle := flow.resource(placeholder)) is not None
        ]
        columns = [column for column in written if column is not None]
        if not columns or visit.node is None:
            return None
        # Of several updates on the way, the first is the one that it works for.
        of = self.names.described[columns[0]]
        shape = visit.node.op.outputs[visit.output].shape if visit.node.op.outputs else None
        return of.name if shape is None or tuple(shape) == of.shape else None

    def _layer(self, node: Node, forward: Op | None) -> str | None:
        at = node if forward is None else self._flow.node_of(forward)
        if at is not None and at.creation.path is not None:
            return self.names.owners.layer(at.creation.layer) or self._whole_path(at.creation.path, at.op)
        if forward is None and node.creation.in_gradient:
            return None
        op = node.op if forward is None else forward
        layers = {self.names.described[column].layer for column in self.names.columns_used(op)}
        return self._scope(op) or (layers.pop() if len(layers) == 1 else None)

    def _whole_path(self, path: str, op: Op) -> str:
        """Return a layer's path as those of its neighbours are; without variables of its own Keras does not know it."""
        scope = _without_numbers(op.name.rpartition("/")[0])
        before, found, _ = f"/{scope}/".partition(f"/{path}/")
        return path if path in self._layers or not found else f"{before}/{path}".lstrip("/")

    def _scope(self, op: Op) -> str | None:
        """Return the name scopes that an operation is in, without those that TensorFlow opens."""
        parts = op.name.split("/")[:-1]
        own = (part for at, part in enumerate(parts, 1) if "/".join(parts[:at]) in self.names.traced.scopes)
        scope = "/".join(own)
        if not scope:
            return None
        plain = _without_numbers(scope)
        return plain if scope not in self._layers and plain in self._layers else scope

    @cached_property
    def _layers(self) -> set[str | None]:
        return {variable.layer for variable in self.names.described}

    def _operands(self, node: Node, ranges: Mapping[int, Range]) -> Iterator[Operand]:
        for place, found in sorted(ranges.items()):
            name = self.names.operand(node.op.inputs[place])
            yield Operand(name, found.dtype, found.shape, found.counts, found.min, found.max, found.zeros)

    @cached_property
    def _batch_size(self) -> int:
        """The leading dimension that most arguments have; -1 where there is none."""
        shapes = (value.shape for value in self.names.traced.arguments.values())
        sizes = Counter(int(shape[0]) for shape in shapes if shape.rank)
        return sizes.most_common(1)[0][0] if sizes else -1


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
    """Return what is seen where a variable is read, of which nothing is seen where it is written."""
    seen = (counts for hop in visit.way() if hop.look for counts in hop.look.outputs.values())
    return next((counts.kind for counts in seen if counts.kind), "nan")


def _owner_of(variable: str | None) -> str | None:
    owner, slash, _ = (variable or "").rpartition("/")
    return owner if slash else None


def _is_glue(visit: Visit) -> bool:
    return visit.node is not None and visit.node.op.type in _GLUE


def _without_rounds(way: Sequence[Visit]) -> list[Visit]:
    """Leave out the rounds of a loop: of an operation that comes by again, all up to its last time."""
    shown: list[Visit] = []
    for visit in way:
        number = -1 if visit.node is None else visit.node.number
        at = next((place for place, one in enumerate(shown) if one.node and one.node.number == number), None)
        if at is not None:
            del shown[at + 1 :]
        else:
            shown.append(visit)
    return shown


def _without_numbers(scope: str) -> str:
    return "/".join(_NUMBERED.sub("", part) for part in scope.split("/"))
