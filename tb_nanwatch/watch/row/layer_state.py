"""What the forward pass writes beside the trained variables, where a bad value matters: the statistics of layers.

A metric may be Inf and training be well. What tells a layer's own statistics from it is whose they are: they belong to
a layer that has a watched variable too, or are called as batch norm's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.schema.records import Variable
from tb_nanwatch.watch.graphs import Graph, captured_handles
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.row.infinities import Infinities, handles_read
from tb_nanwatch.watch.row.measure import without_infinity
from tb_nanwatch.watch.variables import handle_of, name_of, source_behind, writes

_STATISTICS: Final = frozenset({"moving_mean", "moving_variance"})
_IN_MODEL: Final = 3
"""The parts of a name that has a model, a layer and a last part."""


def written_statistics(
    graph: Graph,
    variables: Sequence[Any],
    described: Sequence[Variable],
    *,
    owners: Owners,
    results: Sequence[tf.Tensor] = (),
    infinities: Infinities,
) -> dict[str, tf.Tensor]:
    """Return what was last written to each statistic of a layer: its new value, or what is added to it.

    Infinities that are meant count as 0: those that were there as watching began, and those of a statistic that no
    result depends on. Batch norm's statistics are read by inference, and never meant so.

    Args:
        graph: of the step, forward and backward pass traced, the update not yet.
        variables: the watched variables.
        described: what the header says of each.
        owners: where the variables of the user's models stand.
        results: the loss and the gradients.
        infinities: that variables began with.

    Returns:
        By name of the variable; empty for an eager step, and without what is written in a nested function or branch.
    """
    if not hasattr(graph, "captures"):
        return {}
    watched = {id(handle_of(variable)) for variable in variables}
    handles = captured_handles(graph)
    found: dict[str, tf.Tensor] = {}
    read, needed = handles_read(graph, list(results))
    for op, placeholder in writes(graph.get_operations()):
        handle = handles.get(placeholder.name)
        name = None if handle is None or id(handle) in watched else owners.variable(handle) or name_of(handle)
        if name is not None and is_statistic(name, described):
            values = [tensor for tensor in op.inputs if tensor.dtype.is_floating]
            is_used = id(source_behind(handle)) in read or any(tensor.op.name in needed for tensor in values)
            is_free = may_be_infinite(name) and bool(results) and not is_used
            is_free = is_free or infinities.of(handle) is not None
            found.update((name, without_infinity(tensor) if is_free else tensor) for tensor in values)
    return found


def may_be_infinite(name: str) -> bool:
    """Return whether a statistic of a layer may be Inf on purpose, as batch norm's may not.

    Args:
        name: of the variable.
    """
    # On many devices the number of the replica comes last.
    return _STATISTICS.isdisjoint(name.split("/")[-2:])


def is_statistic(name: str, described: Sequence[Variable]) -> bool:
    """Return whether a variable is a statistic of a layer.

    Args:
        name: of the variable.
        described: what the header says of each watched variable.
    """
    owner, _, last = name.rpartition("/")
    path = name.split("/")
    others = [variable.name.split("/") for variable in described]
    is_models = len(path) >= _IN_MODEL and any(len(other) >= _IN_MODEL and other[0] == path[0] for other in others)
    is_owned = bool(owner) and owner in {variable.layer for variable in described}
    return last in _STATISTICS or is_owned or is_models
