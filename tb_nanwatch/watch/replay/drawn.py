"""What a step draws by itself: random numbers that no seed of the program fixes, elements of iterators and queues.

A second run would draw others. So the guard hands out what a bad step drew, and the replay is given the same. Where an
operation that draws stands in a loop, a branch or a function, its outputs are out of the guard's reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.replay.probe import UNSEEDED
from tb_nanwatch.watch.tf_internals import inner_graphs

Graph = Any
Op = Any
Tensor = Any
ELEMENTS: Final = frozenset(
    {
        "IteratorGetNext",
        "IteratorGetNextSync",
        "QueueDequeueV2",
        "QueueDequeueManyV2",
        "QueueDequeueUpToV2",
    }
)
"""Operations that take what the next run cannot take once more."""
_WITHOUT_ARRAY: Final = (tf.variant, tf.resource)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a step drew, up to one of its guards.

    Attributes:
        kinds: the types of all operations that draw, in the order in which they were created.
        outputs: by the place of an operation among these, its outputs, of those that the guard can reach.
    """

    kinds: Sequence[str]
    outputs: Mapping[int, Sequence[Tensor]]

    @classmethod
    def in_graph(cls, graph: Graph) -> Drawn:
        """Find what draws in a graph, as far as it is traced."""
        found = list(_draws(graph))
        own = {place: list(op.outputs) for place, op in enumerate(found) if op.graph is graph and _is_kept(op)}
        return cls([op.type for op in found], own)

    def with_values(self, values: Sequence[Tensor]) -> Drawn:
        """Return the same with values in the place of the tensors of the graph, in their order."""
        rest = iter(values)
        return Drawn(self.kinds, {place: [next(rest) for _ in tensors] for place, tensors in self.outputs.items()})

    @property
    def tensors(self) -> list[Tensor]:
        """All outputs, in order."""
        return [tensor for tensors in self.outputs.values() for tensor in tensors]


@dataclass(eq=False)
class Feed:
    """Gives the operations of a trial that draw what the step drew.

    Attributes:
        drawn: by the step; of nothing where it is not known.
    """

    drawn: Drawn
    _met: list[Op] = field(default_factory=list)
    _fed: set[int] = field(default_factory=set)

    def values_for(self, op: Op) -> Sequence[Tensor] | None:
        """Return what takes the place of a new operation's outputs; ``None`` where it draws anew, or does not draw."""
        if op.type not in UNSEEDED | ELEMENTS:
            return None
        place = len(self._met)
        self._met.append(op)
        values = self.drawn.outputs.get(place)
        if values is None or self.drawn.kinds[place] != op.type or not _fit(values, op.outputs):
            return None
        self._fed.add(place)
        return values

    def is_right(self, root: Graph) -> bool:
        """Return whether the trial draws in the order in which the step did, so that each was given its own."""
        found = list(_draws(root))
        kinds = [op.type for op in found]
        is_alike = kinds[: len(self.drawn.kinds)] == list(self.drawn.kinds)
        is_own = all(place < len(found) and found[place] is self._met[place] for place in self._fed)
        return not self._fed or (is_alike and is_own)

    def kinds_anew(self) -> set[str]:
        """Return the types of the operations that drew random numbers anew."""
        return {op.type for place, op in enumerate(self._met) if place not in self._fed and op.type in UNSEEDED}


def _draws(graph: Graph) -> Iterator[Op]:
    for op in graph.get_operations():
        if op.type in UNSEEDED | ELEMENTS:
            yield op
        for inner in inner_graphs(op):
            yield from _draws(inner)


def _is_kept(op: Op) -> bool:
    return not any(tensor.dtype in _WITHOUT_ARRAY for tensor in op.outputs)


def _fit(values: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    return len(values) == len(outputs) and all(
        value.dtype == output.dtype and output.shape.is_compatible_with(value.shape)
        for value, output in zip(values, outputs, strict=True)
    )
