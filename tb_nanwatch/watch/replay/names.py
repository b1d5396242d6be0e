"""What the user calls the things of a trace: arguments, variables, constants and layers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from tb_nanwatch.watch.graphs import Op, Tensor
from tb_nanwatch.watch.record.batch import Part
from tb_nanwatch.watch.replay.probe import Node, constant_of
from tb_nanwatch.watch.replay.step_trace import StepTrace

PASSING: Final = frozenset({"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "ExpandDims", "StopGradient"})
_NUMBERED: Final = re.compile(r"_\d+$")


@dataclass(frozen=True, eq=False)
class Names:
    """The names of the things of a trace. Values from outside the step are given by their outside tensor."""

    trace: StepTrace

    def column(self, outside: Tensor) -> int | None:
        """Return the column of a watched variable; ``None`` for any other value."""
        key = self.trace.variable_key(outside)
        return None if key is None else self._columns.get(key)

    def column_of(self, variable: Any) -> int | None:
        """Return the column of a variable; ``None`` if it is not watched."""
        return self._columns.get(self.trace.key_of(variable))

    @cached_property
    def _columns(self) -> dict[Any, int]:
        return {self.trace.key_of(variable): column for column, variable in enumerate(self.trace.watched.variables)}

    def is_variable(self, outside: Tensor) -> bool:
        """Return whether a value from outside is a variable."""
        return self.trace.variable_key(outside) is not None

    def is_argument(self, outside: Tensor) -> bool:
        """Return whether a value from outside is an argument of the step."""
        return outside.name in self.trace.inputs.arguments

    def samples(self, outside: Tensor) -> tuple[int, ...]:
        """Return the bad samples of an argument."""
        rows = self.trace.inputs.rows.get(outside.name)
        return Part(np.asarray(self.trace.value(outside)), rows).samples()

    def variable(self, outside: Tensor) -> str | None:
        """Return the name of a variable."""
        column = self.column(outside)
        return self.trace.variable_name(outside) if column is None else self.trace.watched.described[column].name

    def columns_used(self, op: Op) -> set[int]:
        """Return the columns of the watched variables that are direct inputs of an operation."""
        variables = (self.trace.variable_behind(tensor, PASSING) for tensor in op.inputs)
        columns = (self.column(outside) for outside in variables if outside is not None)
        return {column for column in columns if column is not None}

    def numbers_in(self, op: Op) -> list[str]:
        """Return the arguments that a constant may come from: the Python numbers that equal its value."""
        numbers = self.trace.inputs.numbers
        value = constant_of(op) if op.type == "Const" and numbers else np.zeros(0)
        return [name for name, number in numbers.items() if np.array_equal(value, number, equal_nan=True)]

    def operand(self, tensor: Tensor) -> str:
        """Return the name of an operation's input: of the argument or the variable, or else of the tensor."""
        source = self.trace.flow.original(tensor)
        if source.name in self.trace.inputs.arguments:
            return self.trace.inputs.arguments[source.name]
        outside = self.trace.variable_behind(tensor, frozenset())
        name = None if outside is None else self.variable(outside)
        return name or str(source.name).removesuffix(":0")

    def layer(self, node: Node, forward: Op | None) -> str | None:
        """Return the layer that an operation works for, or the name scope that it is in.

        Args:
            node: the operation.
            forward: the forward operation whose gradient it belongs to, if it belongs to one.
        """
        at = node if forward is None else self.trace.flow.node_of(forward)
        if at is not None and at.creation.path is not None:
            return self.trace.watched.owners.layer(at.creation.layer) or self._whole_path(at.creation.path, at.op)
        if forward is None and node.creation.in_gradient:
            return None
        op = node.op if forward is None else forward
        layers = {self.trace.watched.described[column].layer for column in self.columns_used(op)}
        return self.trace.scope(op, self._layers) or (layers.pop() if len(layers) == 1 else None)

    def _whole_path(self, path: str, op: Op) -> str:
        """Return the path of a layer with its models, which Keras does not know for a layer without variables."""
        scope = without_numbers(op.name.rpartition("/")[0])
        before, found, _ = f"/{scope}/".partition(f"/{path}/")
        return path if path in self._layers or not found else f"{before}/{path}".lstrip("/")

    @cached_property
    def _layers(self) -> set[str | None]:
        return {variable.layer for variable in self.trace.watched.described}


def owner_of(variable: str | None) -> str | None:
    """Return the layer part of a variable's name; ``None`` if it has none."""
    owner, slash, _ = (variable or "").rpartition("/")
    return owner if slash else None


def without_numbers(scope: str) -> str:
    """Return a name scope without the numbers that TensorFlow adds to repeated names."""
    return "/".join(_NUMBERED.sub("", part) for part in scope.split("/"))
