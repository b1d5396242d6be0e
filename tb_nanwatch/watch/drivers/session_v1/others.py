"""What a run of a session writes besides the step: by other fetches, which no guard holds back.

Nothing orders such a write and the step's reading of the same variable, so it may have come before or after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.diagnosis.sentences import format_source, shorten
from tb_nanwatch.schema.records import Link
from tb_nanwatch.watch.drivers.session_v1.feeds import FedCall
from tb_nanwatch.watch.drivers.session_v1.intake import source_read, takes_anew
from tb_nanwatch.watch.drivers.session_v1.plan import Built
from tb_nanwatch.watch.graphs import Op, Tensor, ancestors
from tb_nanwatch.watch.replay.creation import Creation
from tb_nanwatch.watch.replay.lines import stack_of, users_line
from tb_nanwatch.watch.replay.look import Look, range_of
from tb_nanwatch.watch.replay.probe import Node
from tb_nanwatch.watch.replay.walk import Visit
from tb_nanwatch.watch.tf_internals import is_reference
from tb_nanwatch.watch.variables import variable_writes

_MOST_NAMED: Final = 3
_NO_ORDER: Final = "Nothing orders that write and the read of the step."


@dataclass(frozen=True, eq=False)
class Write:
    """One operation that writes a variable.

    Attributes:
        op: the operation.
        source: of the variable.
    """

    op: Op
    source: Tensor

    def place_of(self, value: Tensor) -> int:
        """Return the place of a value among what the operation is given."""
        return [tensor.name for tensor in self.op.inputs].index(value.name)

    @property
    def values(self) -> list[Tensor]:
        """What the operation is given besides the variable, as far as it is floating."""
        return [one for one in self.op.inputs if one.dtype.is_floating and not is_reference(one)]

    @property
    def constant(self) -> Any:
        """What the operation assigns, where that stands in the graph; ``None`` where it does not."""
        is_assigned = self.op.type in ("Assign", "AssignVariableOp") and len(self.values) == 1
        return tf.get_static_value(self.values[0]) if is_assigned else None

    @property
    def name(self) -> str:
        """The variable's name, as a sentence has it."""
        return shorten(str(self.source.op.name))

    def __str__(self) -> str:
        """Return the operation and its line, as a sentence names them."""
        line = users_line(stack_of(self.op))
        return f"{self.op.type}, {format_source(line)}" if line else str(self.op.type)


@dataclass(frozen=True, eq=False)
class SideWrites:
    """The writes of a bad run to variables that its step reads, as far as what they wrote can be computed again.

    Attributes:
        writes: those.
        operations: that their values depend on.
        only: of those, and of the writes themselves, the ones that are no part of the step.
    """

    writes: Sequence[Write]
    operations: set[Op]
    only: set[Op]

    @classmethod
    def of(cls, others: Sequence[Write], needed: set[Op], call: FedCall) -> SideWrites:
        """Find them.

        Args:
            others: all that the run wrote besides the step.
            needed: operations of the step.
            call: of the run.
        """
        changed = {write.source.name for write in others}
        found: list[Write] = []
        operations: set[Op] = set()
        for write in others:
            behind = ancestors(write.values, stop=lambda tensor: tensor.name in call.fed)
            if write.source.op in needed and _is_computable(behind, changed, call.had):
                found.append(write)
                operations |= behind
        return cls(found, operations, (operations - needed) | {write.op for write in found})

    @property
    def values(self) -> list[Tensor]:
        """What they wrote."""
        return [value for write in self.writes for value in write.values]

    def bad(self, values: Iterable[Any], *, first: int) -> dict[str, list[Node]]:
        """Return those that wrote something bad, by name of the variable's source.

        Args:
            values: of :attr:`values`.
            first: the number of the first of them.
        """
        found: dict[str, list[Node]] = {}
        arrays = iter(values)
        for number, write in enumerate(self.writes, first):
            given = {write.place_of(value): np.asarray(next(arrays)) for value in write.values}
            look = look_at_write(given, is_constant=all(value.op.type == "Const" for value in write.values))
            if look is not None:
                node = Node(write.op, number, Creation())
                node.looks.append(look)
                found.setdefault(write.source.name, []).append(node)
        return found


def look_at_write(given: Mapping[int, Any], *, is_constant: bool) -> Look | None:
    """Return how a write is looked at; ``None`` if it was given finite values.

    Args:
        given: by place, the values.
        is_constant: whether they stand in the graph, so that nothing lies behind the operation.
    """
    ranges = {place: range_of(array) for place, array in given.items()}
    bad = {place: seen.counts for place, seen in ranges.items() if seen.counts.nonfinite}
    if not bad:
        return None
    behind = frozenset[int]() if is_constant else frozenset(bad)
    return Look(-1, behind, {0: next(iter(bad.values()))}, (), 0, ranges, swallowed=False)


@dataclass(eq=False)
class Writes:
    """What the runs of a session wrote besides the step.

    Attributes:
        now: by the last run.
        before: by name of the source, what wrote it last in an earlier run that was watched, and the step of that run.
        next_step: the number of the step that comes next, as far as it is known.
    """

    now: Sequence[Write] = ()
    before: dict[str, tuple[Write, int]] = field(default_factory=dict)
    next_step: int = 0

    def begin(self, others: Sequence[Write]) -> None:
        """Know what the run that begins will write."""
        self.now = others

    def end(self, step: int) -> None:
        """Know that the run is over.

        Args:
            step: of the run; of one that does not train, the step that comes next.
        """
        for write in self.now:
            self.before[write.source.name] = write, step
        self.now = ()

    def values_before(self) -> dict[str, Any]:
        """Return what the last run overwrote in place, where that is known and was bad, by name of the source.

        What the step reads of a reference variable is the variable's own memory: by the time that the host sees it,
        another fetch may have written there. A resource variable's memory is not written while somebody reads it.
        """
        known = {
            write.source.name: self.before[write.source.name][0].constant
            for write in self._in_place
            if write.source.name in self.before
        }
        return {name: value for name, value in known.items() if value is not None and not np.isfinite(value).all()}

    def without_doubtful(self, chains: tuple[tuple[Link, ...], ...]) -> tuple[tuple[Link, ...], ...]:
        """Leave out what a step may have read only after the run had overwritten it, where there is another origin."""
        doubtful = {str(write.source.op.name) for write in self._in_place}
        certain = [
            chain for chain in chains if not any(link.phase == "state" and link.variable in doubtful for link in chain)
        ]
        return tuple(certain) or chains

    @property
    def _in_place(self) -> list[Write]:
        return [write for write in self.now if is_reference(write.source)]

    def notes_on(self, origins: Iterable[Visit]) -> Iterator[str]:
        """Say what is known of who wrote the variables in which a bad value was."""
        for origin in origins:
            source = origin.outside if origin.node is None else None
            for write in self.now:
                if origin.node is not None and origin.node.op is write.op:
                    yield f"{write.op.type} is another fetch of the same run. {_NO_ORDER}"
                elif source is not None and source.name == write.source.name:
                    yield f"The same run also wrote {write.name} ({write}). {_NO_ORDER}"
            if source is not None and source.name in self.before:
                write, step = self.before[source.name]
                yield f"An earlier run that the watch saw, at step {step:,}, wrote {write.name} ({write})."


def other_writes(run: set[Op], built: Built) -> list[Write]:
    """Return the writes of a run that are neither held back in a bad step nor put back after it.

    Args:
        run: all operations of the run.
        built: the step.
    """
    own = ancestors([built.guard.passed]) | set(built.update_ops)
    found = [
        Write(op, source)
        for op, source in variable_writes(run)
        if op not in own and source.name not in built.guard.state.names
    ]
    held = {op for op, _ in variable_writes(built.update_ops)}
    return [write for write in found if not _waits_for(write.op, held, besides=built.train_op)]


def note_on_kept(others: Sequence[Write]) -> Iterator[str]:
    """Say which writes of a bad run were kept."""
    if not others:
        return
    names = [f"{write.name} ({write})" for write in others[:_MOST_NAMED]]
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    end = "This write is no part of the update, and it was kept."
    ends = "These writes are no part of the update, and they were kept."
    yield f"The run of the bad step also wrote {', '.join(names)}{more}. {end if len(others) == 1 else ends}"


def _is_computable(behind: set[Op], changed: set[str], had: Mapping[str, Any]) -> bool:
    """Return whether some operations give now, that the run is over, what they gave in it."""
    read = {source.name for op in behind if (source := source_read(op)) is not None}
    is_known = all(output.name in had for op in behind if takes_anew(op) for output in op.outputs)
    return is_known and not any(True for _ in variable_writes(behind)) and not read & changed


def _waits_for(op: Op, held: set[Op], *, besides: Op) -> bool:
    """Return whether an operation waits for what is held back; what waits for the train operation alone does not."""
    seen: set[Op] = {besides}
    waiting = [op]
    while waiting:
        one = waiting.pop()
        if one in held:
            return True
        if one not in seen:
            seen.add(one)
            waiting += [*(tensor.op for tensor in one.inputs if isinstance(tensor, tf.Tensor)), *one.control_inputs]
    return False
