"""Side writes: what other fetches of a run write to variables, outside of the step and of its guard.

Nothing orders a side write and the step's read of the same variable: the write may run before the read or after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.diagnosis.sentences import format_source, shorten
from tb_nanwatch.schema.records import Link
from tb_nanwatch.watch.graphs import Op, Tensor, ancestors
from tb_nanwatch.watch.record.intake import FedCall, source_read, takes_anew
from tb_nanwatch.watch.replay.creation import Creation
from tb_nanwatch.watch.replay.execution import execution_of_write
from tb_nanwatch.watch.replay.probe import Node
from tb_nanwatch.watch.replay.source_lines import stack_of, users_line
from tb_nanwatch.watch.replay.walk import Visit
from tb_nanwatch.watch.tf_internals import is_reference
from tb_nanwatch.watch.variables import variable_writes

if TYPE_CHECKING:
    from tb_nanwatch.watch.drivers.session_v1.plan import Built

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
        """Return the place of a value among the operation's inputs."""
        return [tensor.name for tensor in self.op.inputs].index(value.name)

    @property
    def values(self) -> list[Tensor]:
        """The operation's floating inputs, without the variable."""
        return [given for given in self.op.inputs if given.dtype.is_floating and not is_reference(given)]

    @property
    def constant(self) -> Any:
        """The value that the operation assigns, if it is a constant of the graph; else ``None``."""
        is_assigned = self.op.type in ("Assign", "AssignVariableOp") and len(self.values) == 1
        return tf.get_static_value(self.values[0]) if is_assigned else None

    @property
    def name(self) -> str:
        """The variable's name, shortened for a sentence."""
        return shorten(str(self.source.op.name))

    def __str__(self) -> str:
        """Return the operation and its line, as part of a sentence."""
        line = users_line(stack_of(self.op))
        return f"{self.op.type}, {format_source(line)}" if line else str(self.op.type)


@dataclass(frozen=True, eq=False)
class SideWrites:
    """The side writes of a bad run to variables that its step reads, if their values can be computed again.

    Attributes:
        writes: each of them.
        operations: all that their values depend on.
        only: those operations, and those of the writes, that are no part of the step.
    """

    writes: Sequence[Write]
    operations: set[Op]
    only: set[Op]

    @classmethod
    def of(cls, others: Sequence[Write], needed: set[Op], call: FedCall) -> SideWrites:
        """Find them.

        Args:
            others: all side writes of the run.
            needed: operations of the step.
            call: of the run.
        """
        changed = {write.source.name for write in others}
        found: list[Write] = []
        operations: set[Op] = set()
        for write in others:
            behind = ancestors(write.values, stop=lambda tensor: tensor.name in call.fed)
            if write.source.op in needed and _is_computable(behind, changed, call.entered):
                found.append(write)
                operations |= behind
        return cls(found, operations, (operations - needed) | {write.op for write in found})

    @property
    def values(self) -> list[Tensor]:
        """The values that they wrote."""
        return [value for write in self.writes for value in write.values]

    def bad(self, values: Iterable[Any], *, first: int) -> dict[str, list[Node]]:
        """Return the writes of a non-finite value, by name of the variable's source.

        Args:
            values: the values of :attr:`values`.
            first: the number of the first write.
        """
        found: dict[str, list[Node]] = {}
        arrays = iter(values)
        for number, write in enumerate(self.writes, first):
            given = {write.place_of(value): np.asarray(next(arrays)) for value in write.values}
            execution = execution_of_write(given, is_constant=all(value.op.type == "Const" for value in write.values))
            if execution is not None:
                node = Node(write.op, number, Creation())
                node.executions.append(execution)
                found.setdefault(write.source.name, []).append(node)
        return found


@dataclass(eq=False)
class Writes:
    """The side writes of the runs of a session.

    Attributes:
        now: those of the last run.
        before: by name of the source, the last write of an earlier watched run, and the step of that run.
        next_step: the number of the next step, as far as it is known.
    """

    now: Sequence[Write] = ()
    before: dict[str, tuple[Write, int]] = field(default_factory=dict)
    next_step: int = 0

    def begin(self, others: Sequence[Write]) -> None:
        """Note what the run that begins will write."""
        self.now = others

    def end(self, step: int) -> None:
        """Note that the run is over.

        Args:
            step: of the run; if it does not train, the step that comes next.
        """
        for write in self.now:
            self.before[write.source.name] = write, step
        self.now = ()

    def values_before(self) -> dict[str, Any]:
        """Return the non-finite values that the last run overwrote in place, if known, by name of the source.

        A step's read of a reference variable shares the variable's memory: another fetch may write there before the
        host sees the value. No write changes a resource variable's memory while a read uses it.
        """
        known = {
            write.source.name: self.before[write.source.name][0].constant
            for write in self._in_place
            if write.source.name in self.before
        }
        return {name: value for name, value in known.items() if value is not None and not np.isfinite(value).all()}

    def without_doubtful(self, chains: tuple[tuple[Link, ...], ...]) -> tuple[tuple[Link, ...], ...]:
        """Leave out origins that the run may have overwritten before the step read them, if another origin is left."""
        doubtful = {str(write.source.op.name) for write in self._in_place}
        certain = [
            chain for chain in chains if not any(link.phase == "state" and link.variable in doubtful for link in chain)
        ]
        return tuple(certain) or chains

    @property
    def _in_place(self) -> list[Write]:
        return [write for write in self.now if is_reference(write.source)]

    def notes_on(self, origins: Iterable[Visit]) -> Iterator[str]:
        """Yield a sentence on each write of a variable that held a bad value."""
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
    """Return the writes of a run that a bad step neither withholds nor restores.

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
    withheld = {op for op, _ in variable_writes(built.update_ops)}
    return [write for write in found if not _waits_for(write.op, withheld, train_op=built.train_op)]


def note_on_kept(others: Sequence[Write]) -> Iterator[str]:
    """Yield a sentence that says which writes of a bad run were kept."""
    if not others:
        return
    names = [f"{write.name} ({write})" for write in others[:_MOST_NAMED]]
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    end = "This write is no part of the update, and it was kept."
    ends = "These writes are no part of the update, and they were kept."
    yield f"The run of the bad step also wrote {', '.join(names)}{more}. {end if len(others) == 1 else ends}"


def _is_computable(behind: set[Op], changed: set[str], had: Mapping[str, Any]) -> bool:
    """Return whether operations give the same values after the run as in it."""
    read = {source.name for op in behind if (source := source_read(op)) is not None}
    is_known = all(output.name in had for op in behind if takes_anew(op) for output in op.outputs)
    return is_known and not any(True for _ in variable_writes(behind)) and not read & changed


def _waits_for(op: Op, withheld: set[Op], *, train_op: Op) -> bool:
    """Return whether an operation waits for one that is withheld, by another way than the train operation."""
    seen: set[Op] = {train_op}
    waiting = [op]
    while waiting:
        op = waiting.pop()
        if op in withheld:
            return True
        if op not in seen:
            seen.add(op)
            waiting += [*(tensor.op for tensor in op.inputs if isinstance(tensor, tf.Tensor)), *op.control_inputs]
    return False
