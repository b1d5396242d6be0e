"""The arguments of a step: the arrays that a trace takes as placeholders, and the rest, which it is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.record.batch import Call, parts_of


@dataclass(frozen=True)
class _Slot:
    """Marks the place of an array."""

    number: int


@dataclass(frozen=True, eq=False)
class Arguments:
    """A call whose arrays can be replaced.

    Attributes:
        leaves: the tensors and arrays among the arguments, at any depth.
        numbers: by name, the arguments that are NaN or Inf as a Python number: they are constants in the graph.
    """

    leaves: Sequence[Any]
    numbers: Mapping[str, float]
    _structure: Any
    _names: Sequence[str]
    _captured: dict[int, str]
    _rows: Mapping[int, Any]

    @classmethod
    def of(cls, call: Call) -> Arguments:
        """Separate the arrays of a call from the rest."""
        leaves: list[Any] = []

        def slot_for(leaf: Any) -> Any:
            if not isinstance(leaf, tf.Tensor | np.ndarray) or not _is_fed(leaf):
                return leaf
            leaves.append(leaf)
            return _Slot(len(leaves) - 1)

        structure = tf.nest.map_structure(slot_for, (call.args, dict(call.kwargs)))
        named = list(call.leaves())
        name_of = {id(leaf): name for name, leaf in named}
        parts = {id(part): name for name, leaf in named for part in _parts(leaf)}
        rows = {id(tensor): part.rows for _, leaf in named if _is_composite(leaf) for tensor, part in parts_of(leaf)}
        names = [name_of.get(id(leaf), f"argument {at}") for at, leaf in enumerate(leaves)]
        return cls(leaves, _bad_numbers(named), structure, names, parts, rows)

    def call(self, function: Callable[..., Any], leaves: Sequence[Any]) -> Any:
        """Call a function with these arguments, and with other values for the arrays."""

        def filled(leaf: Any) -> Any:
            return leaves[leaf.number] if isinstance(leaf, _Slot) else leaf

        args, kwargs = tf.nest.map_structure(filled, self._structure)
        return function(*args, **kwargs)

    def names(self, graph: Any) -> dict[str, str]:
        """Return the name of the argument behind each placeholder of a graph that was traced with :meth:`call`."""
        fed = {tensor.name: name for tensor, name in zip(graph.inputs, self._names, strict=False)}
        captured = ((inner.name, self._captured.get(id(outer))) for outer, inner in graph.captures)
        return fed | {inner: name for inner, name in captured if name is not None}

    def rows(self, graph: Any) -> dict[str, Any]:
        """Return, by placeholder, the samples that the values of a sparse or ragged argument belong to."""
        captured = ((inner.name, self._rows.get(id(outer))) for outer, inner in graph.captures)
        return {inner: rows for inner, rows in captured if rows is not None}


def _bad_numbers(named: Sequence[tuple[str, Any]]) -> dict[str, float]:
    return {
        name: float(leaf) for name, leaf in named if isinstance(leaf, float | np.floating) and not np.isfinite(leaf)
    }


def _is_fed(leaf: Any) -> bool:
    return isinstance(leaf, tf.Tensor) or leaf.dtype.kind not in "OMm"


def _is_composite(leaf: Any) -> bool:
    return isinstance(leaf, tf.__internal__.CompositeTensor)


def _parts(leaf: Any) -> Iterator[Any]:
    if _is_composite(leaf):
        yield from tf.nest.flatten(leaf, expand_composites=True)
