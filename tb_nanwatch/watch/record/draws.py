"""What a step draws by itself: random numbers that no seed of the program fixes, elements of iterators and queues.

A second run would draw other values. So the guard hands out what a bad step drew, and the replay gets the same values.
The guard cannot reach the outputs of an operation in a loop, a branch or a function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.tf_internals import inner_graphs

UNSEEDED: Final = frozenset(
    {
        "RandomUniform",
        "RandomUniformInt",
        "RandomStandardNormal",
        "TruncatedNormal",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoissonV2",
        "RandomShuffle",
        "Multinomial",
    }
)
"""Operations that draw from a generator of their own, whose state cannot be restored."""
_ELEMENTS: Final = (
    "IteratorGetNext",
    "QueueDequeue",
    "ReaderRead",
    "Unstage",
    "BarrierTakeMany",
    "OrderedMapUnstage",
)
"""How the types of operations begin that take an element. The next run takes another element."""
_WITHOUT_ARRAY: Final = (tf.variant, tf.resource)


@dataclass(frozen=True, eq=False)
class Draws:
    """What a step drew, up to one of its guards.

    Attributes:
        kinds: the types of all operations that draw, in the order of their creation.
        outputs: by the place of an operation in ``kinds``, its outputs, for each that the guard can reach.
    """

    kinds: Sequence[str]
    outputs: Mapping[int, Sequence[Tensor]]

    @classmethod
    def in_graph(cls, graph: Graph) -> Draws:
        """Find the operations that draw in a graph, as far as it is traced."""
        found = list(_drawing_ops(graph))
        own = {place: list(op.outputs) for place, op in enumerate(found) if op.graph is graph and _has_arrays(op)}
        return cls([op.type for op in found], own)

    def with_values(self, values: Sequence[Tensor]) -> Draws:
        """Return the same draws with values in the place of the tensors of the graph, in their order."""
        rest = iter(values)
        return Draws(self.kinds, {place: [next(rest) for _ in tensors] for place, tensors in self.outputs.items()})

    @property
    def tensors(self) -> list[Tensor]:
        """All outputs, in order."""
        return [tensor for tensors in self.outputs.values() for tensor in tensors]


NO_DRAWS: Final = Draws((), {})


@dataclass(eq=False)
class DrawFeed:
    """Gives the operations of a replay that draw what the step drew.

    Attributes:
        draws: what the step drew; empty where that is not known.
    """

    draws: Draws
    _met: list[Op] = field(default_factory=list)
    _fed: set[int] = field(default_factory=set)

    def values_for(self, op: Op) -> Sequence[Tensor] | None:
        """Return the values for the outputs of a new operation; ``None`` if it draws anew or does not draw."""
        if not (op.type in UNSEEDED or takes_element(op)):
            return None
        place = len(self._met)
        self._met.append(op)
        values = self.draws.outputs.get(place)
        if values is None or self.draws.kinds[place] != op.type or not _fit(values, op.outputs):
            return None
        self._fed.add(place)
        return values

    def is_right(self, root: Graph) -> bool:
        """Return whether the replay draws in the order of the step, so that each operation got its own values."""
        found = list(_drawing_ops(root))
        kinds = [op.type for op in found]
        is_same_order = kinds[: len(self.draws.kinds)] == list(self.draws.kinds)
        is_own = all(place < len(found) and found[place] is self._met[place] for place in self._fed)
        return not self._fed or (is_same_order and is_own)

    def kinds_drawn_anew(self) -> set[str]:
        """Return the types of the operations that drew other random numbers than the step."""
        return {op.type for place, op in enumerate(self._met) if place not in self._fed and op.type in UNSEEDED}


def takes_element(op: Op) -> bool:
    """Return whether an operation takes an element of a batch from an iterator, a queue or another container."""
    return bool(op.type.startswith(_ELEMENTS))


def note_on_new_draws(kinds: set[str]) -> tuple[str, ...]:
    """Return the note that a replay drew other random numbers, if some operations did."""
    if not kinds:
        return ()
    return (f"The step draws random numbers by {', '.join(sorted(kinds))}, which draws others when it is run again.",)


def _drawing_ops(graph: Graph) -> Iterator[Op]:
    for op in graph.get_operations():
        if op.type in UNSEEDED or takes_element(op):
            yield op
        for inner in inner_graphs(op):
            yield from _drawing_ops(inner)


def _has_arrays(op: Op) -> bool:
    return not any(tensor.dtype in _WITHOUT_ARRAY for tensor in op.outputs)


def _fit(values: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    return len(values) == len(outputs) and all(
        value.dtype == output.dtype and output.shape.is_compatible_with(value.shape)
        for value, output in zip(values, outputs, strict=True)
    )
