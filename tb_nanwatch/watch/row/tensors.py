"""Watched tensors, from where the user names them to the ``apply_gradients`` of their step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.graphs import Graph, is_inside, with_enclosing
from tb_nanwatch.watch.row.measure import SampledTensor

Named: TypeAlias = "tf.Tensor | SampledTensor"


class PendingTensors:
    """Tensors that were named since the last ``apply_gradients``, each with the graph it is of."""

    def __init__(self) -> None:
        """Begin with none."""
        self._tensors: dict[tuple[int, str], Named] = {}

    def add(self, name: str, value: Named) -> None:
        """Keep a tensor of the step that is being traced or run; two of one name in one trace become ``name#2``.

        Raises:
            SetupError: if it is not floating.
        """
        dtype = _tensor_of(value).dtype
        if not dtype.is_floating:
            raise SetupError(f"a watched tensor must be floating; {name!r} is {dtype.name}")
        unique, number, graph = name, 1, _graph_of(value)
        while graph is not None and (id(graph), unique) in self._tensors:
            number += 1
            unique = f"{name}#{number}"
        self._tensors[id(graph), unique] = value

    def take(self, graph: Graph | None) -> tuple[dict[str, Named], list[str]]:
        """Return what can be measured in a graph, by name, and the names of what cannot; nothing is kept.

        Tensors of functions that have nothing to do with the graph are forgotten, such as those of an evaluation.

        Args:
            graph: that ``apply_gradients`` is called in; ``None`` for an eager step.
        """
        pending, self._tensors = self._tensors, {}
        within = {id(None)} if graph is None else {id(one) for one in with_enclosing(graph)}
        found = {name: value for (place, name), value in pending.items() if place in within}
        others = [(name, value) for (place, name), value in pending.items() if place not in within]
        return found, list(_related(others, graph))


def _related(tensors: list[tuple[str, Named]], graph: Graph | None) -> Iterator[str]:
    for name, value in tensors:
        other = _graph_of(value)
        if graph is not None and other is not None and (is_inside(other, graph) or is_inside(graph, other)):
            yield name


def _graph_of(value: Named) -> Any:
    tensor = _tensor_of(value)
    return tensor.graph if tf.is_symbolic_tensor(tensor) else None


def _tensor_of(value: Named) -> tf.Tensor:
    return value.tensor if isinstance(value, SampledTensor) else value
