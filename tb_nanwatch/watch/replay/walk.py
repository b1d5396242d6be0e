"""The walk: from a non-finite value back to the operations that had finite inputs and a non-finite output.

An operation with a non-finite input is no origin. A non-finite value that no operation used is never met: the walk
follows only the paths on which non-finite values moved.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import MOST_SAMPLES
from tb_nanwatch.watch.graphs import Tensor
from tb_nanwatch.watch.replay.boundaries import HOLDERS
from tb_nanwatch.watch.replay.execution import SWALLOWERS, Execution, lost_samples
from tb_nanwatch.watch.replay.flow import Flow, Place
from tb_nanwatch.watch.replay.probe import Node, is_floating

_END: Final = math.inf


@dataclass(frozen=True, eq=False)
class Visit:
    """A non-finite value that the walk met.

    Attributes:
        node: the operation that made it; ``None`` for a value from outside the step.
        execution: the run of the operation.
        output: which of its outputs the walk came to.
        outside: the root graph's tensor for a value from outside: of an argument or a variable.
        towards: the visit that the walk came from, one hop nearer to the value that it began at.
        swallowed: whether its NaN did not come out again, so that only data flow connects it to ``towards``.
    """

    node: Node | None
    execution: Execution | None
    output: int
    outside: Tensor
    towards: Visit | None
    swallowed: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """A key that identifies the visit."""
        if self.node is None:
            return -1, hash(self.outside.name)
        return self.node.number, self.execution.moment if self.execution else -1

    @property
    def moment(self) -> float:
        """The time of the run; a run without a known time counts as later than all that it depends on."""
        return self.execution.moment if self.execution is not None and self.execution.moment >= 0 else _END

    @property
    def has_nan(self) -> bool:
        """Whether the operation returned NaN."""
        return self.execution is not None and self.execution.has_nan

    @property
    def is_origin(self) -> bool:
        """Whether the walk may end here: no non-finite input was seen."""
        return self.execution is None or not self.execution.inputs

    def samples_among(self, samples: Collection[int], size: int) -> frozenset[int]:
        """Return which of some samples are bad here too; none where the leading dimension is not the batch size."""
        if self.execution is None or self.execution.leading != size:
            return frozenset()
        seen = self.execution.samples
        # If there are many samples, an execution holds only the first.
        last = seen[-1] if len(seen) >= MOST_SAMPLES else size
        return frozenset(sample for sample in samples if sample in seen or sample > last)

    def path(self) -> Iterator[Visit]:
        """Yield the visits from here to the value that the walk began at."""
        visit: Visit | None = self
        while visit is not None:
            yield visit
            visit = visit.towards


@dataclass(eq=False)
class Walk:
    """A walk back through a trace that has run.

    Attributes:
        flow: the data flow of the trace.
        is_bad: returns whether a value from outside was non-finite as the step began.
        value: returns the value of an outside tensor.
        written: by the name of a variable's outside tensor, the operations outside the step that wrote a non-finite
            value to it in the same run. Each has one execution.
        origins: where the walk ended, each once, in the order in which it met them.
    """

    flow: Flow
    is_bad: Callable[[Tensor], bool]
    value: Callable[[Tensor], Any]
    written: Mapping[str, Sequence[Node]] = field(default_factory=dict)
    origins: list[Visit] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _users: dict[tuple[int, int], list[Visit]] = field(default_factory=dict)
    _first_nans: set[tuple[int, int]] = field(default_factory=set)

    def back_from(self, tensor: Tensor) -> list[Visit]:
        """Walk back from a tensor of the trace and return the new origins; none if the tensor was finite."""
        known = len(self.origins)
        waiting = deque(self._bad_sources([tensor], moment=_END, towards=None))
        while waiting:
            visit = waiting.popleft()
            if visit.key in self._seen:
                continue
            self._seen.add(visit.key)
            before = self._before(visit)
            self._note_users(visit, before)
            if before:
                waiting += before
            else:
                self.origins.append(visit)
        return self.origins[known:]

    def first_nan(self, origin: Visit) -> Visit | None:
        """Return where the infinity of an origin first became NaN, in order of time; ``None`` if it never did.

        Several paths may lead on from an origin, and the NaN is not always on the shortest.
        """
        seen, waiting, found = {origin.key}, [origin.key], []
        while waiting:
            for visit in self._users.get(waiting.pop(), ()):
                if visit.key not in seen:
                    seen.add(visit.key)
                    waiting.append(visit.key)
                    found += [visit] if visit.key in self._first_nans else []
        return min(found, key=lambda visit: (visit.moment, visit.key), default=None)

    def samples_reaching(self, origin: Visit, samples: Iterable[int], size: int) -> tuple[int, ...]:
        """Return which bad samples of an origin reached the end of the walk, or an operation that mixes samples.

        Args:
            origin: an origin that the walk met.
            samples: the bad indices in its leading dimension, which is the batch.
            size: the batch size.
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
        """Return whether the users of an origin have the batch as leading dimension and no other bad samples."""
        executions = [user.execution for user in self._users.get(origin.key, ())]
        users = [found for found in executions if found is not None and found.leading == size]
        return bool(users) and all(set(found.samples) <= set(samples) for found in users)

    def is_reached(self, tensor: Tensor) -> bool:
        """Return whether a tensor was non-finite."""
        return bool(self._bad_sources([tensor], moment=_END, towards=None))

    def has_nan(self, tensor: Tensor) -> bool:
        """Return whether a tensor held NaN."""
        return any(visit.has_nan for visit in self._bad_sources([tensor], moment=_END, towards=None))

    def _note_users(self, visit: Visit, before: Sequence[Visit]) -> None:
        for source in before:
            self._users.setdefault(source.key, []).append(visit)
        if before and visit.has_nan and not any(source.has_nan for source in before):
            self._first_nans.add(visit.key)

    def _before(self, visit: Visit) -> list[Visit]:
        node, execution = visit.node, visit.execution
        if node is None or execution is None:
            return []
        is_outside_step = any(node in writers for writers in self.written.values())
        variable, entered = self.flow.boundaries.read_by(node.op), self.flow.boundaries.entered_by(node.op)
        if variable is not None and not is_outside_step:
            return self._before_read(visit, variable)
        bad = [node.op.inputs[place] for place in sorted(execution.inputs)] if entered is None else entered
        if bad or is_outside_step or entered is not None:
            return self._bad_sources(bad, moment=visit.moment, towards=visit)
        held = [tensor for tensor in node.op.inputs if tensor.dtype in HOLDERS]
        found = self._bad_sources(held, moment=visit.moment, towards=visit)
        return found or self._compared(visit, node) or self._swallowed(visit, node)

    def _bad_sources(self, tensors: Sequence[Tensor], *, moment: float, towards: Visit | None) -> list[Visit]:
        found = []
        for tensor in tensors:
            is_held = tensor.dtype in HOLDERS
            visits = [
                visit
                for place in self.flow.places(tensor)
                if (visit := self._visit(place, moment, towards=towards, is_first=is_held)) is not None
            ]
            # In a tensor list, the first bad element made the rest bad. A loop's variable was read at its last value.
            ordered = sorted(visits, key=_moment_of, reverse=not is_held)
            found += ordered[:1]
        return found

    def _visit(self, place: Place, moment: float, *, towards: Visit | None, is_first: bool) -> Visit | None:
        if place.node is None:
            is_bad = place.outside.dtype != tf.variant and self.is_bad(place.outside)
            return Visit(None, None, 0, place.outside, towards) if is_bad else None
        choose = place.node.first_bad_before if is_first else place.node.last_bad_before
        execution = choose(moment, place.output)
        return None if execution is None else Visit(place.node, execution, place.output, None, towards)

    def _before_read(self, visit: Visit, handle: Tensor) -> list[Visit]:
        """Return the write that made a variable bad earlier in the step, or the variable if it began bad."""
        resource = self.flow.resource(handle)
        if resource is None:
            return []
        if self.is_bad(resource):
            others = self.written.get(resource.name, ())
            if not others:
                return [Visit(None, None, 0, resource, visit)]
            return [Visit(node, node.executions[0], 0, None, visit) for node in others[-1:]]
        nodes = [node for writer in self.flow.writers(resource) if (node := self.flow.node_of(writer)) is not None]
        if self._runs_in_order(visit):
            # The report of a write does not wait for the reads before it.
            nodes = [node for node in nodes if visit.node is not None and node.number < visit.node.number]
        earlier = [(node, found) for node in nodes for found in node.executions if found.moment < visit.moment]
        bad = [(node, found) for node, found in earlier if found.inputs] or earlier
        return [Visit(node, found, 0, None, visit) for node, found in bad[-1:]]

    def _runs_in_order(self, visit: Visit) -> bool:
        """Return whether an operation ran once, and after all operations created before it on the same variable."""
        in_loop = visit.node is None or self.flow.boundaries.is_in_loop(visit.node.op.graph)
        return visit.moment != _END and not in_loop

    def _compared(self, visit: Visit, node: Node) -> list[Visit]:
        """Return a NaN whose comparison decided the inputs of this operation, so that they are finite and wrong.

        TensorFlow's gradients compare values that are equal unless they are NaN. For the user's own comparisons, a NaN
        counts as the cause only where nothing else was compared.
        """
        for op in self.flow.compared_behind(node.op):
            tensors = {self.flow.original(tensor).name: tensor for tensor in op.inputs if is_floating(tensor.dtype)}
            # A comparison of a tensor with itself asks for NaN.
            if len(op.inputs) == 2 and len(tensors) == 1 and self.flow.original(op.inputs[1]).name in tensors:
                continue
            bad = self._bad_sources(list(tensors.values()), moment=visit.moment, towards=visit)
            is_own = self.flow.is_gradients_own(op)
            lost = [source for source in bad if self._is_lost(source, visit, is_any_enough=is_own)]
            if lost:
                return [replace(lost[0], swallowed=True)]
        return []

    def _is_lost(self, compared: Visit, visit: Visit, *, is_any_enough: bool) -> bool:
        """Return whether the compared value was NaN: all of it, or all of each sample that is bad now."""
        if compared.node is None or compared.execution is None:
            array = np.asarray(self.value(compared.outside))
            nans, size, lost, leading = int(np.isnan(array).sum()), array.size, lost_samples(array), np.shape(array)[:1]
        else:
            execution = compared.execution
            counts = execution.outputs[compared.output]
            nans, size, lost, leading = counts.nan, counts.size, execution.lost, (execution.leading,)
        if is_any_enough or nans in (0, size):
            return nans > 0
        bad = () if visit.execution is None or (visit.execution.leading,) != leading else visit.execution.samples
        return bool(bad) and set(bad) <= set(lost)

    def _swallowed(self, visit: Visit, node: Node) -> list[Visit]:
        """Return an operation before this one that swallowed a NaN, so that its output is finite and wrong."""
        for before in self._swallowers_behind(node):
            found = next((one for one in before.executions if one.swallowed and one.moment < visit.moment), None)
            if found is not None:
                return [Visit(before, found, 0, None, visit, swallowed=True)]
        return []

    def _swallowers_behind(self, node: Node) -> Iterator[Node]:
        if not any(execution.swallowed for other in self.flow.nodes for execution in other.executions):
            return
        seen, waiting = {node.number}, deque([node])
        while waiting:
            for source in self.flow.sources(waiting.popleft()):
                if source.number not in seen:
                    seen.add(source.number)
                    waiting.append(source)
                    if source.op.type in SWALLOWERS:
                        yield source


def _moment_of(visit: Visit) -> int:
    return visit.execution.moment if visit.execution else -1
