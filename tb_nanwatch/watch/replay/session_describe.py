"""What the things of a session's graph are called, and what is said of what the walk came by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from tb_nanwatch.schema.records import Link, Phase
from tb_nanwatch.watch.graphs import Op, Tensor
from tb_nanwatch.watch.replay.describe import Description
from tb_nanwatch.watch.replay.flow import READS
from tb_nanwatch.watch.replay.names import PASSING, Names
from tb_nanwatch.watch.replay.phases import Phases, Stage
from tb_nanwatch.watch.replay.probe import CONTROL_FLOW
from tb_nanwatch.watch.replay.session_probe import EXITS, SOURCES
from tb_nanwatch.watch.replay.session_scopes import users_scope
from tb_nanwatch.watch.replay.walk import Visit
from tb_nanwatch.watch.tf_internals import inner_graphs
from tb_nanwatch.watch.variables import handle_of, variable_writes

_FUNCTIONS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


@dataclass(frozen=True, eq=False)
class GraphNames(Names):
    """Names of what stands in a graph.

    Attributes:
        values: gives the value of a tensor that is fed, or of the variable of a source.
    """

    values: Callable[[Tensor], Any]

    def column(self, handle: Any) -> int | None:
        """Return the column of the watched variable with this source; ``None`` of any other."""
        return self._column_of.get(handle.name)

    @cached_property
    def _column_of(self) -> Mapping[str, int]:
        return {handle_of(variable).name: column for column, variable in enumerate(self.watched)}

    def value(self, placeholder: Tensor) -> Any:
        """Return the value of what is fed, or of a variable."""
        return self.values(placeholder)

    def variable(self, placeholder: Tensor) -> str | None:
        """Return the name of a variable."""
        column = self.column(placeholder)
        return str(placeholder.op.name) if column is None else self.described[column].name

    def constant(self, op: Op) -> str | None:
        """Return the name that the graph has for a constant."""
        return str(op.name)

    def columns_used(self, op: Op) -> set[int]:
        """Return the columns of the watched variables that an operation is given directly."""
        columns = (self.column(_behind(tensor, PASSING)) for tensor in op.inputs)
        return {column for column in columns if column is not None}

    def operand(self, tensor: Tensor) -> str:
        """Return what an input of an operation is called: an argument, a variable, or else the tensor."""
        if tensor.name in self.arguments:
            return self.arguments[tensor.name]
        source = _behind(tensor, frozenset({"Identity"}))
        name = self.variable(source) if source.op.type in SOURCES else None
        return name or str(tensor.name).removesuffix(":0")


@dataclass(frozen=True, eq=False)
class GraphPhases(Phases):
    """Phases of a graph's operations.

    Attributes:
        brought: by name of a placeholder that brings a gradient, the place of its variable in what was given.
        besides: operations of the same run that are no part of the step, and write a variable that it reads.
    """

    brought: Mapping[str, int]
    besides: Collection[Op]

    def of(self, visit: Visit, stage: Stage) -> Phase:
        """Return the phase of something bad; see :class:`Phases`."""
        if visit.node is not None:
            return "state" if visit.node.op in self.besides else super().of(visit, stage)
        if visit.outside.op.type in SOURCES:
            return "state" if self.names.column(visit.outside) is None else "weights"
        return "backward" if self.names.operand(visit.outside) in self.brought else "input"


@dataclass(frozen=True, eq=False)
class GraphDescription(Description):
    """Turns visits of one graph into links."""

    phases: GraphPhases

    def _link(self, visit: Visit, stage: Stage, *, is_first: bool) -> Link:
        link = super()._link(visit, stage, is_first=is_first)
        if visit.node is not None and visit.node.op in self.phases.besides:
            written = [self.names.variable(source) for _, source in variable_writes([visit.node.op])]
            link = replace(link, variable=next(iter(written), None))
        # The operation that was first stands somewhere inside, and what it was nobody saw.
        return replace(link, op=None, inputs=()) if is_first and hides_operations(visit) else link

    def _from_outside(self, visit: Visit, stage: Stage) -> Link:
        link = super()._from_outside(visit, stage)
        place = self.phases.brought.get(link.tensor or "")
        if place is None:
            return link
        column = self.names.column(handle_of(self.phases.given.variables[place]))
        of = None if column is None else self.names.described[column]
        # Rows of a gradient are no samples.
        return link if of is None else replace(link, variable=of.name, layer=of.layer, samples=())

    def _scope(self, op: Op) -> str | None:
        return users_scope(op.name, self._flow.stack(op), layers=self._layers)

    @cached_property
    def _batch_size(self) -> int:
        """The leading dimension that most of what is fed has; -1 where there is none."""
        sparse = {name.removesuffix("values:0") for name in self.names.rows}
        fed = self.names.traced.arguments.items()
        shapes = (np.shape(value) for name, value in fed if f"{name.rpartition('/')[0]}/" not in sparse)
        sizes = Counter(int(shape[0]) for shape in shapes if shape)
        return sizes.most_common(1)[0][0] if sizes else -1


def hides_operations(visit: Visit) -> bool:
    """Return whether what the walk came by is a loop or a function, into which nobody looks."""
    if visit.node is None:
        return False
    op = visit.node.op
    return op.type in EXITS | CONTROL_FLOW | _FUNCTIONS or bool(inner_graphs(op))


def _behind(tensor: Tensor, passing: frozenset[str]) -> Tensor:
    while tensor.op.type in passing | READS:
        tensor = tensor.op.inputs[0]
    return tensor
