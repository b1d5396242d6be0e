"""The walk: from what went bad back through what was not finite, to the operations that were given only finite values.

An operation that was given something bad is no origin, and something bad that nobody used never comes up: the walk
takes only ways on which the bad values travelled.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import MOST_SAMPLES
from tb_nanwatch.watch.replay.flow import READS, Flow, Place
from tb_nanwatch.watch.replay.look import SWALLOWERS, Look, lost_samples
from tb_nanwatch.watch.replay.probe import Node, is_floating

Tensor = Any
_HOLDERS: Final = (tf.variant, tf.resource)
_END: Final = math.inf


@dataclass(frozen=True, eq=False)
class Visit:
    """Something bad that the walk came by.

    Attributes:
        node: the operation; ``None`` for a value from outside the step.
        look: the run of it that was bad.
        output: which of its outputs the walk came to.
        outside: the root graph's placeholder of a value from outside: of an argument, or of a variable.
        towards: the visit it was reached from, one hop nearer to what went bad.
        swallowed: whether its NaN did not come out again, so that ``towards`` was reached by data flow alone.
    """

    node: Node | None
    look: Look | None
    output: int
    outside: Tensor
    towards: Visit | None
    swallowed: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What tells visits apart."""
        if self.node is None:
            return -1, hash(self.outside.name)
        return self.node.number, self.look.moment if self.look else -1

    @property
    def moment(self) -> float:
        """When it ran; one whose time is not known came after all that it depends on."""
        return self.look.moment if self.look is not None and self.look.moment >= 0 else _END

    @property
    def has_nan(self) -> bool:
        """Whether the operation made NaN of anything."""
        return self.look is not None and any(counts.nan for counts in self.look.outputs.values())

    def samples_among(self, samples: Collection[int], size: int) -> frozenset[int]:
        """Return which of some samples are bad here too; none where the leading dimension is not the batch's size."""
        if self.look is None or self.look.leading != size:
            return frozenset()
        seen = self.look.samples
        # Of many samples a look keeps the first.
        last = seen[-1] if len(seen) >= MOST_SAMPLES else size
        return frozenset(sample for sample in samples if sample in seen or sample > last)

    def way(self) -> Iterator[Visit]:
        """Yield the visits from here to what went bad."""
        visit: Visit | None = self
        while visit is not None:
            yield visit
            visit = visit.towards


@dataclass(eq=False)
class Walk:
    """One walk back through a trial that has run.

    Attributes:
        flow: of the trial.
        is_bad: tells of a placeholder of the root graph whether what it stood for, an argument or a variable as the
            step began, was not finite.
        value: gives what such a placeholder stood for.
        origins: where the walk ended, each once, in the order in which it came to them.
    """

    flow: Flow
    is_bad: Any
    value: Any
    origins: list[Visit] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _users: dict[tuple[int, int], list[Visit]] = field(default_factory=dict)
    _turned: set[tuple[int, int]] = field(default_factory=set)

    def back_from(self, tensor: Tensor) -> list[Visit]:
        """Walk back from a tensor of the trial and return the origins that were not known before; none if finite."""
        known = len(self.origins)
        waiting = deque(self._bad_sources([tensor], moment=_END, towards=None))
        while waiting:
            visit = waiting.popleft()
            if visit.key in self._seen:
                continue
            self._seen.add(visit.key)
            before = list(self._before(visit))
            self._note(visit, before)
            if before:
                waiting += before
            else:
                self.origins.append(visit)
        return self.origins[known:]

    def first_nan(self, origin: Visit) -> Visit | None:
        """Return where what began as infinity at an origin first became NaN, in order of time; ``None`` if never.

        Several ways may lead on from an origin, and the shortest is not always the one on which that happened.
        """
        seen, waiting, found = {origin.key}, [origin.key], []
        while waiting:
            for visit in self._users.get(waiting.pop(), ()):
                if visit.key not in seen:
                    seen.add(visit.key)
                    waiting.append(visit.key)
                    found += [visit] if visit.key in self._turned else []
        return min(found, key=lambda visit: (visit.moment, visit.key), default=None)

    def samples_reaching(self, origin: Visit, samples: Iterable[int], size: int) -> tuple[int, ...]:
        """Return which bad samples of an origin came through to what went bad, or to where samples are mixed.

        Args:
            origin: that the walk came to.
            samples: the bad indices in its leading dimension, which is the batch.
            size: of the batch.
        """
        arrived: set[int] = set()
        waiting = [(origin.key, frozenset(samples))]
        seen = set(waiting)
        while waiting:
            key, here = waiting.pop()
            onward = [(user.key, user.samples_among(here, size)) for user in self._users.get(key, ())]
            if not onward or not all(kept for _, kept in onward):
                arrived |= here
            new = {(key, kept) for key, kept in onward if kept} - seen
            seen |= new
            waiting += new
        return tuple(sorted(arrived))

    def works_by_samples(self, origin: Visit, samples: Collection[int], size: int) -> bool:
        """Return whether what uses an origin has the batch as its leading dimension, and no other bad samples."""
        users = [user.look for user in self._users.get(origin.key, ()) if user.look and user.look.leading == size]
        return bool(users) and all(set(look.samples) <= set(samples) for look in users)

    def is_reached(self, tensor: Tensor) -> bool:
        """Return whether a tensor was bad."""
        return bool(self._bad_sources([tensor], moment=_END, towards=None))

    def has_nan(self, tensor: Tensor) -> bool:
        """Return whether a tensor held NaN."""
        return any(visit.has_nan for visit in self._bad_sources([tensor], moment=_END, towards=None))

    def _note(self, visit: Visit, before: Sequence[Visit]) -> None:
        for one in before:
            self._users.setdefault(one.key, []).append(visit)
        if before and visit.has_nan and not any(one.has_nan for one in before):
            self._turned.add(visit.key)

    def _before(self, visit: Visit) -> Iterable[Visit]:
        node, look = visit.node, visit.look
        if node is None or look is None:
            return []
        bad = [node.op.inputs[place] for place in sorted(look.inputs)]
        if bad:
            return self._bad_sources(bad, moment=visit.moment, towards=visit)
        if node.op.type in READS:
            return self._of_variable(visit, node.op.inputs[0], visit.moment)
        held = [tensor for tensor in node.op.inputs if tensor.dtype in _HOLDERS]
        return self._bad_sources(held, moment=visit.moment, towards=visit) or [
            *(self._compared(visit) or self._swallowed(visit))
        ]

    def _bad_sources(self, tensors: Sequence[Tensor], *, moment: float, towards: Visit | None) -> list[Visit]:
        found = []
        for tensor in tensors:
            is_held = tensor.dtype in _HOLDERS
            visits = [
                visit
                for place in self.flow.places(tensor)
                if (visit := self._visit(place, moment, towards=towards, earliest=is_held)) is not None
            ]
            # Of a list of tensors what was bad first spoilt the rest; of a loop's variable the last value was read.
            ordered = sorted(visits, key=lambda visit: visit.look.moment if visit.look else -1, reverse=not is_held)
            found += ordered[:1]
        return found

    def _visit(self, place: Place, moment: float, *, towards: Visit | None, earliest: bool) -> Visit | None:
        if place.node is None:
            is_bad = place.outside.dtype != tf.variant and self.is_bad(place.outside)
            return Visit(None, None, 0, place.outside, towards) if is_bad else None
        choose = place.node.first_bad if earliest else place.node.bad_before
        look = choose(moment, place.output)
        return None if look is None else Visit(place.node, look, place.output, None, towards)

    def _of_variable(self, visit: Visit, handle: Tensor, moment: float) -> list[Visit]:
        """Go on to what spoilt the variable earlier in the step, unless it was bad as the step began."""
        resource = self.flow.resource(handle)
        if resource is None:
            return []
        if self.is_bad(resource):
            return [Visit(None, None, 0, resource, visit)]
        written = [self.flow.node_of(writer) for writer in self.flow.writers(resource)]
        looks = [(node, look) for node in written if node for look in node.looks if look.moment < moment]
        spoilt = [(node, look) for node, look in looks if look.inputs] or looks
        return [Visit(node, look, 0, None, visit) for node, look in spoilt[-1:]]

    def _compared(self, visit: Visit) -> list[Visit]:
        """Return a NaN whose comparison made what this operation was given, so that finite values say nothing.

        TensorFlow's gradients compare values that they know to be equal, which no NaN is. What the user's own
        comparison made of NaN is NaN's doing only where nothing else was compared.
        """
        if visit.node is None:
            return []
        for op in self.flow.compared_behind(visit.node.op):
            tensors = {self.flow.real(tensor).name: tensor for tensor in op.inputs if is_floating(tensor.dtype)}
            # A comparison of a tensor with itself asks for NaN.
            if len(op.inputs) == 2 and len(tensors) == 1 and self.flow.real(op.inputs[1]).name in tensors:
                continue
            bad = self._bad_sources(list(tensors.values()), moment=visit.moment, towards=visit)
            is_own = self.flow.is_gradients_own(op)
            lost = [one for one in bad if self._is_lost(one, visit, is_any_enough=is_own)]
            if lost:
                return [replace(lost[0], swallowed=True)]
        return []

    def _is_lost(self, compared: Visit, visit: Visit, *, is_any_enough: bool) -> bool:
        """Return whether what was compared was NaN; all of it, or all of each sample that is bad now."""
        if compared.node is None or compared.look is None:
            array = np.asarray(self.value(compared.outside))
            nans, size, lost, leading = int(np.isnan(array).sum()), array.size, lost_samples(array), np.shape(array)[:1]
        else:
            look = compared.look
            counts = look.outputs[compared.output]
            nans, size, lost, leading = counts.nan, counts.size, look.lost, (look.leading,)
        if is_any_enough or nans in (0, size):
            return nans > 0
        bad = () if visit.look is None or (visit.look.leading,) != leading else visit.look.samples
        return bool(bad) and set(bad) <= set(lost)

    def _swallowed(self, visit: Visit) -> list[Visit]:
        """Return an operation before this one that swallowed a NaN, so that what it passed on is wrong."""
        if visit.node is None or visit.look is None:
            return []
        for node in self._ancestors(visit.node):
            look = next((look for look in node.looks if look.swallowed and look.moment < visit.moment), None)
            if look is not None:
                return [Visit(node, look, 0, None, visit, swallowed=True)]
        return []

    def _ancestors(self, node: Node) -> Iterator[Node]:
        if not any(look.swallowed for other in self.flow.nodes for look in other.looks):
            return
        seen, waiting = {node.number}, deque([node])
        while waiting:
            for source in self.flow.sources(waiting.popleft()):
                if source.number not in seen:
                    seen.add(source.number)
                    waiting.append(source)
                    if source.op.type in SWALLOWERS:
                        yield source
