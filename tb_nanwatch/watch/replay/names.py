"""What the user calls the things of a trial: arguments, variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import Variable
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.record.batch import Part
from tb_nanwatch.watch.replay.flow import READS
from tb_nanwatch.watch.replay.probe import constant_of
from tb_nanwatch.watch.replay.run import Traced
from tb_nanwatch.watch.variables import dtype_of, handle_of, name_of

Op = Any
Tensor = Any
PASSING: Final = frozenset({"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "ExpandDims", "StopGradient"})


@dataclass(frozen=True, eq=False)
class Names:
    """Names of what a trial was given.

    Attributes:
        traced: the trial.
        arguments: by the name of its placeholder, the name of each argument.
        watched: the watched variables, in column order.
        described: what the header says of each.
        rows: by the name of its placeholder, the samples that the values of a sparse or ragged argument belong to.
        numbers: by name, the arguments that are NaN or Inf as a Python number: in the graph they are constants.
        owners: where layers and variables stand in the user's models.
    """

    traced: Traced
    arguments: Mapping[str, str]
    watched: Sequence[Any]
    described: Sequence[Variable]
    numbers: Mapping[str, float]
    rows: Mapping[str, Any]
    owners: Owners = field(default_factory=Owners, kw_only=True)

    def column(self, handle: Any) -> int | None:
        """Return the column of the watched variable with this handle; ``None`` of any other."""
        return self._columns.get(id(handle))

    @cached_property
    def _columns(self) -> dict[int, int]:
        return {id(handle_of(variable)): column for column, variable in enumerate(self.watched)}

    def value(self, placeholder: Tensor) -> Any:
        """Return what a placeholder of the root graph stands for: an argument, a captured tensor, or a variable."""
        value = self.traced.fed[placeholder.name]
        if value.dtype == tf.resource:
            value = tf.raw_ops.ReadVariableOp(resource=value, dtype=dtype_of(value))
        return value.numpy()

    def is_argument(self, placeholder: Tensor) -> bool:
        """Return whether a placeholder of the root graph stands for an argument of the step."""
        return placeholder.name in self.arguments

    def samples(self, placeholder: Tensor) -> tuple[int, ...]:
        """Return the bad samples of an argument."""
        return Part(np.asarray(self.value(placeholder)), self.rows.get(placeholder.name)).samples()

    def variable(self, placeholder: Tensor) -> str | None:
        """Return the name of the variable that a placeholder of the root graph stands for."""
        handle = self.traced.fed[placeholder.name]
        column = self.column(handle)
        if column is not None:
            return self.described[column].name
        return self.owners.variable(handle) or name_of(handle)

    def columns_used(self, op: Op) -> set[int]:
        """Return the columns of the watched variables that an operation is given directly."""
        columns = set()
        for tensor in op.inputs:
            source = self.traced.flow.real(tensor)
            while source.op.type in PASSING:
                source = self.traced.flow.real(source.op.inputs[0])
            handle = source.op.inputs[0] if source.op.type in READS else source
            column = self._column_behind(handle) if handle.dtype == tf.resource else None
            columns |= set() if column is None else {column}
        return columns

    def numbers_in(self, op: Op) -> list[str]:
        """Return the arguments that a constant may have been made of: the Python numbers that are what it holds."""
        held = constant_of(op) if op.type == "Const" and self.numbers else np.zeros(0)
        return [name for name, number in self.numbers.items() if np.array_equal(held, number, equal_nan=True)]

    def constant(self, op: Op) -> str | None:
        """Return what the program calls the data that it made a constant of."""
        return self.traced.flow.name_of_constant(op)

    def captured(self, placeholder: Tensor) -> str | None:
        """Return what the program calls a tensor that the step captured."""
        return self.traced.flow.name_of_captured(self.traced.fed[placeholder.name])

    def operand(self, tensor: Tensor) -> str:
        """Return what an input of an operation is called: an argument, a variable, or else the tensor."""
        source = self.traced.flow.real(tensor)
        if source.name in self.arguments:
            return self.arguments[source.name]
        placeholder = self.traced.flow.resource(source.op.inputs[0]) if source.op.type in READS else None
        name = None if placeholder is None else self.variable(placeholder)
        return name or str(source.name).removesuffix(":0")

    def _column_behind(self, handle: Tensor) -> int | None:
        placeholder = self.traced.flow.resource(handle)
        return None if placeholder is None else self.column(self.traced.fed.get(placeholder.name))
