"""Tensors that a row measures in addition to gradients and variables.

The user names some of them. The others are the statistics that layers write in the forward pass, such as batch norm's
moving mean: there a bad value matters. A metric may be Inf while training is well. A statistic differs from a metric by
its owner: it belongs to a layer that has a watched variable too, or has the name of a statistic of batch norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Variable
from tb_nanwatch.watch.graphs import Graph, captured_handles, is_inside, with_enclosing
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.row.infinities import InitialInfinities
from tb_nanwatch.watch.row.measure import SampledTensor, without_infinity
from tb_nanwatch.watch.variables import handle_of, name_of, source_behind, writes

Watched: TypeAlias = "tf.Tensor | SampledTensor"
_STATISTICS: Final = frozenset({"moving_mean", "moving_variance"})
_IN_MODEL: Final = 3
"""The number of parts of a name with a model, a layer and a last part."""


class PendingTensors:
    """Tensors that the user named since the last ``apply_gradients``, each with its graph."""

    def __init__(self) -> None:
        """Begin with none."""
        self._tensors: dict[tuple[int, str], Watched] = {}

    def add(self, name: str, value: Watched) -> None:
        """Keep a tensor of the step that is traced or run; the second one of a name in a trace becomes ``name#2``.

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

    def take(self, graph: Graph | None) -> tuple[dict[str, Watched], list[str]]:
        """Return the tensors that can be measured in a graph, by name, and the names of those that cannot.

        All tensors are removed. Tensors of functions that are unrelated to the graph are dropped, such as those of an
        evaluation.

        Args:
            graph: that ``apply_gradients`` is called in; ``None`` for an eager step.
        """
        pending, self._tensors = self._tensors, {}
        within = {id(None)} if graph is None else {id(enclosing) for enclosing in with_enclosing(graph)}
        found = {name: value for (place, name), value in pending.items() if place in within}
        others = [(name, value) for (place, name), value in pending.items() if place not in within]
        return found, list(_related(others, graph))


def _related(tensors: list[tuple[str, Watched]], graph: Graph | None) -> Iterator[str]:
    for name, value in tensors:
        other = _graph_of(value)
        if graph is not None and other is not None and (is_inside(other, graph) or is_inside(graph, other)):
            yield name


def _graph_of(value: Watched) -> Any:
    tensor = _tensor_of(value)
    return tensor.graph if tf.is_symbolic_tensor(tensor) else None


def _tensor_of(value: Watched) -> tf.Tensor:
    return value.tensor if isinstance(value, SampledTensor) else value


def written_statistics(
    graph: Graph | None,
    variables: Sequence[Any],
    described: Sequence[Variable],
    *,
    owners: Owners,
    results: Sequence[tf.Tensor] = (),
    infinities: InitialInfinities,
) -> dict[str, tf.Tensor]:
    """Return the last tensor that a step writes to each statistic of a layer: its new value, or what is added to it.

    Infinities on purpose count as 0: those from before training, and those of a statistic that no result depends on.
    Batch norm's statistics never hold infinities on purpose, because inference reads them.

    Args:
        graph: of the step, after its forward and backward pass and before its update; ``None`` for an eager step.
        variables: the watched variables.
        described: the header's entries for them.
        owners: of the variables of the user's models.
        results: the loss and the gradients.
        infinities: of variables before training.

    Returns:
        By name of the variable. Empty for an eager step, and without what a nested function or branch writes.
    """
    if graph is None or not hasattr(graph, "captures"):
        return {}
    watched = {id(handle_of(variable)) for variable in variables}
    handles = captured_handles(graph)
    found: dict[str, tf.Tensor] = {}
    read, needed = _dependencies(graph, results)
    for op, placeholder in writes(graph.get_operations()):
        handle = handles.get(placeholder.name)
        name = None if handle is None or id(handle) in watched else owners.variable(handle) or name_of(handle)
        if name is not None and is_statistic(name, described):
            values = [tensor for tensor in op.inputs if tensor.dtype.is_floating]
            is_used = id(source_behind(handle)) in read or any(tensor.op.name in needed for tensor in values)
            is_free = may_be_infinite(name) and bool(results) and not is_used
            is_free = is_free or infinities.mask_of(handle) is not None
            found.update((name, without_infinity(tensor) if is_free else tensor) for tensor in values)
    return found


def may_be_infinite(name: str) -> bool:
    """Return whether a statistic of a layer may be Inf on purpose; batch norm's may not.

    Args:
        name: of the variable.
    """
    # On many devices the number of the replica comes last.
    return _STATISTICS.isdisjoint(name.split("/")[-2:])


def is_statistic(name: str, described: Sequence[Variable]) -> bool:
    """Return whether a variable is a statistic of a layer.

    Args:
        name: of the variable.
        described: the header's entries for the watched variables.
    """
    owner, _, last = name.rpartition("/")
    path = name.split("/")
    others = [variable.name.split("/") for variable in described]
    is_models = len(path) >= _IN_MODEL and any(len(other) >= _IN_MODEL and other[0] == path[0] for other in others)
    is_owned = bool(owner) and owner in {variable.layer for variable in described}
    return last in _STATISTICS or is_owned or is_models


def _dependencies(graph: Graph, tensors: Sequence[tf.Tensor]) -> tuple[set[int], set[str]]:
    """Return what tensors of a graph depend on: ids of the handles of variables, and names of operations."""
    handles = captured_handles(graph)
    waiting = [tensor.op for tensor in tensors if tf.is_symbolic_tensor(tensor) and tensor.graph is graph]
    seen: set[str] = set()
    found: set[int] = set()
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        found |= {id(source_behind(given)) for given in op.inputs if given.name in handles}
        waiting += [given.op for given in op.inputs]
    return found, seen
