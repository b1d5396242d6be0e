"""A bad step of a session's graph, run again with the same feed: up to its gradients, and every operation looked at."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import Link, Operation, Replay
from tb_nanwatch.watch.boundary import attempt
from tb_nanwatch.watch.drivers.session_v1.intake import FedCall, name_of_fed, rows_of_sparse, source_read
from tb_nanwatch.watch.drivers.session_v1.plan import Built
from tb_nanwatch.watch.drivers.session_v1.side_writes import SideWrites, Writes
from tb_nanwatch.watch.graphs import Op, Tensor, ancestors
from tb_nanwatch.watch.guard.state import restored_in_session
from tb_nanwatch.watch.replay.again import Evidence, ReplayLimits, behind_failed, chains_of, is_loss_bad, is_settled
from tb_nanwatch.watch.replay.drawn import Drawn, Feed
from tb_nanwatch.watch.replay.lines import stack_of, users_line, whole
from tb_nanwatch.watch.replay.look import range_of
from tb_nanwatch.watch.replay.phases import Stage
from tb_nanwatch.watch.replay.probe import UNSEEDED
from tb_nanwatch.watch.replay.refused import failed_op
from tb_nanwatch.watch.replay.run import NOT_REPEATABLE, CannotReplayError, Traced
from tb_nanwatch.watch.replay.session_describe import GraphDescription, GraphNames, GraphPhases, hides_operations
from tb_nanwatch.watch.replay.session_probe import SOURCES, GraphFlow, GraphProbe, GraphWalk
from tb_nanwatch.watch.replay.trial import Given, Trial
from tb_nanwatch.watch.row.measure import dense_values
from tb_nanwatch.watch.tf_internals import inner_graphs, unfinalize
from tb_nanwatch.watch.variables import handle_of, read_first, variable_writes

_INSIDE: Final = (
    "The first bad value arose inside a loop or a function, into which a replay of a session's graph does not look."
)
_COMPUTED: Final = "The update could not be gone through again: what it was given beside the gradients is not known."
_APPLIES: Final = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply")


@dataclass(frozen=True, eq=False)
class Again:
    """A step that may be run again.

    Attributes:
        built: the step.
        session: that ran it.
        call: what was fed.
        brought: which placeholders bring gradients, see :func:`fed_gradients`.
        others: what the runs of the session wrote besides the step.
    """

    built: Built
    session: Any
    call: FedCall
    brought: Mapping[str, int]
    others: Writes
    _values: dict[str, Any] = field(default_factory=dict)

    def replay(self, evidence: Evidence, *, limits: ReplayLimits) -> Replay:
        """Run the step again up to its gradients, and leave every variable as it was.

        Args:
            evidence: what is known of it.
            limits: what it may take.

        Returns:
            What came of it; it never raises.
        """
        began_s = time.monotonic()

        def again() -> Replay:
            with _unfinished(self.built.graph):
                if evidence.spoilt:
                    return self._last_update(evidence)
                found = self._run(evidence, limits)
                return self._run_overwritten(evidence, limits) or found if found.outcome == "finite" else found

        result = attempt(
            again, failed=lambda reason: Replay("failed", (f"The step could not be run again: {reason}.",))
        )
        return Replay(result.outcome, result.notes, result.chains, time.monotonic() - began_s)

    def _run(self, evidence: Evidence, limits: ReplayLimits) -> Replay:
        given, stages = self._given(), self._stages(evidence)
        graph, fed = self.built.graph, self.call.fed
        failed = None if evidence.error is None else failed_op(evidence.error, [graph])
        if evidence.error is not None and failed is None:
            raise CannotReplayError("which of its operations ended with an error is not known")
        sinks = [sink for _, some in stages for sink in some] if failed is None else list(failed.inputs)
        needed = ancestors(sinks, stop=lambda tensor: tensor.name in fed)
        _check_repeatable(needed)
        besides = SideWrites.of(self.others.now, needed, self.call)
        probe = GraphProbe(time_limit_s=limits.seconds, feed=Feed(Drawn((), {})))
        seen = needed | besides.operations
        reports = probe.look_at(graph, [op for op in graph.get_operations() if op in seen])
        values = self._run_reports(reports, besides.values, needed, probe=probe, limits=limits)
        flow = GraphFlow(probe, graph, fed.keys())
        if failed is not None and not self._fails_again(failed, evidence):
            return Replay("finite", ("The step did not end so when it was run again.",))
        trial = Trial(self.built, tensors=self.built.tensors)
        traced = Traced(trial, [given], graph, flow, reports, fed, set())
        arguments = {name: name_of_fed(name) for name in fed}
        rows = rows_of_sparse(fed)
        names = GraphNames(traced, arguments, evidence.variables, evidence.described, {}, rows, self._value)
        walk = GraphWalk(flow, self._is_bad, self._value, written=besides.bad(values, first=len(probe.nodes)))
        is_bad = failed is not None or is_loss_bad(evidence, walk, given)
        phases = GraphPhases(names, given, is_bad, self.brought, besides.only)
        description = GraphDescription(names, phases, walk)
        if failed is not None:
            return behind_failed(failed, description)
        chains = self.others.without_doubtful(chains_of(walk, [(stages, description)]))
        if not chains:
            return Replay("finite", tuple(_why_finite(needed, self.call.entered)))
        hidden = any(hides_operations(origin) for origin in walk.origins if is_settled(origin))
        notes = (_INSIDE,) if hidden and chains[0][0].op is None else ()
        return Replay("found", (*notes, *self.others.notes_on(walk.origins)), chains)

    def _run_overwritten(self, evidence: Evidence, limits: ReplayLimits) -> Replay | None:
        """Run the step with what a reference variable may have held before another fetch of the run overwrote it."""
        before = self.others.values_before()
        reads = {name: source_read(self.built.graph.get_tensor_by_name(name).op) for name in self.call.entered}
        had = {
            name: np.broadcast_to(before[source.name], np.shape(self.call.entered[name]))
            for name, source in reads.items()
            if source is not None and source.name in before
        }
        if not had:
            return None
        found = replace(self, call=replace(self.call, entered={**self.call.entered, **had}), _values={})._run(
            evidence, limits
        )
        return found if found.outcome == "found" else None

    def _fails_again(self, op: Op, evidence: Evidence) -> bool:
        with self._variables_restored(ancestors([op])):
            try:
                self.session.run(op, dict(self.call.fed))
            except tf.errors.OpError as error:
                return failed_op(error, [self.built.graph]) is op and type(error) is type(evidence.error)
        return False

    def _run_reports(
        self,
        reports: Sequence[Op],
        values: Sequence[Tensor],
        needed: set[Op],
        *,
        probe: GraphProbe,
        limits: ReplayLimits,
    ) -> Sequence[Any]:
        with self._variables_restored(needed):
            try:
                _, seen = self.session.run([reports, values], {**self.call.fed, **self.call.entered})
            except tf.errors.OpError:
                if not probe.expired:
                    raise
                raise CannotReplayError(f"it took longer than {limits.seconds:g} seconds and was broken off") from None
        return list(seen)

    def _given(self) -> Given:
        inputs = self.built.inputs
        clipped = [dense_values(gradient) for gradient, _ in inputs.pairs]
        raw = clipped if inputs.raw is None else [dense_values(gradient) for gradient in inputs.raw]
        return Given([] if inputs.loss is None else [inputs.loss], raw, clipped, inputs.variables)

    def _stages(self, evidence: Evidence) -> list[tuple[Stage, list[Tensor]]]:
        given = self._given()
        in_question = evidence.scope in ("state", "whole step")
        scalars = self.built.guard.observation.tensors.scalars
        return [
            ("forward", [*self.built.tensors.values(), *given.losses]),
            ("backward", [gradient for gradient in given.raw if gradient is not None]),
            ("clip", [gradient for gradient in given.clipped if gradient is not None]),
            ("update", list(scalars.found) if scalars is not None and in_question else []),
            ("state", list(self.built.statistics.values()) if in_question else []),
        ]

    def _value(self, tensor: Tensor) -> Any:
        """Return what was fed for a tensor, or the value of the variable of a source as the bad step read it."""
        if tensor.name in self.call.fed:
            return np.asarray(self.call.fed[tensor.name])
        if tensor.name not in self._values:
            self._values[tensor.name] = self._value_read(tensor)
        return self._values[tensor.name]

    def _value_read(self, source: Tensor) -> Any:
        reads = [self.built.graph.get_tensor_by_name(name).op for name in self.call.entered]
        of_source = [op for op in reads if (read := source_read(op)) is not None and read.name == source.name]
        # What waits for something may have been read after the step itself wrote the variable.
        free = next((op.outputs[0].name for op in of_source if not op.control_inputs), None)
        # A read of the user's may run what he makes wait before it, so the watch has one of its own.
        return self.session.run(read_first(self.built.graph, source)) if free is None else self.call.entered[free]

    def _is_bad(self, tensor: Tensor) -> bool:
        """Return whether what is fed, or a variable, was bad as the step began."""
        array = np.asarray(self._value(tensor))
        return array.dtype.kind in "fcV" and not bool(np.isfinite(array).all())

    def _variables_restored(self, needed: set[Op]) -> AbstractContextManager[None]:
        return restored_in_session(self.session, (handle for _, handle in variable_writes(needed)))

    def _last_update(self, evidence: Evidence) -> Replay:
        """Name the operation that applied the update of the step before, which left a variable bad.

        It is the one operation that writes that variable, and it was given a finite variable and a finite gradient.
        Its slots were its own; what else it is given has to be a constant, or nobody knows what it was.
        """
        chains = [self._applied(variable, evidence) for variable in evidence.variables]
        found = tuple(chain for chain in chains if chain is not None)
        if {chain[0].variable for chain in found} != evidence.spoilt:
            return Replay("failed", (_COMPUTED,))
        return Replay("found", (), found)

    def _applied(self, variable: Any, evidence: Evidence) -> tuple[Link] | None:
        of = evidence.described[[one is variable for one in evidence.variables].index(True)]
        if of.name not in evidence.spoilt:
            return None
        source = handle_of(variable)
        needed = ancestors([self.built.train_op]) & set(self.built.update_ops)
        appliers = [
            op for op, written in variable_writes(needed) if written.name == source.name and op not in self._undoing
        ]
        if len(appliers) != 1 or not appliers[0].type.startswith(_APPLIES) or not self._is_known(appliers[0]):
            return None
        op, stack = appliers[0], stack_of(appliers[0])
        counts = range_of(np.asarray(self._value(source))).counts
        return (
            Link(
                op=Operation(op.type, op.name),
                phase="update",
                layer=of.layer,
                kind=counts.kind or "nan",
                source=users_line(stack),
                variable=of.name,
                counts=counts,
                stack=whole(stack),
            ),
        )

    @property
    def _undoing(self) -> set[Op]:
        return {op for op in self.built.update_ops if "nanwatch/" in op.name}

    def _is_known(self, applier: Op) -> bool:
        gradients = {tensor.name for tensor in self._given().clipped if tensor is not None}
        for tensor in applier.inputs:
            if tensor.op.type in SOURCES or not tensor.dtype.is_floating or tensor.name in gradients:
                continue
            value = tf.get_static_value(tensor)
            behind = ancestors([tensor])
            is_slots = any(op.type in SOURCES for op in behind) and not any(op.type == "Placeholder" for op in behind)
            if not is_slots and (value is None or not np.isfinite(value).all()):
                return False
        return True


@contextmanager
def _unfinished(graph: Any) -> Iterator[None]:
    """Let a finished graph be added to; what is added stands beside, and nothing of the user's depends on it."""
    was_finished = graph.finalized
    unfinalize(graph)
    try:
        yield
    finally:
        if was_finished:
            graph.finalize()


def _check_repeatable(operations: Iterable[Op]) -> None:
    for kind in sorted({op.type for op in _with_inner(operations)}):
        if kind.startswith(NOT_REPEATABLE):
            raise CannotReplayError(f"it runs {kind}, which would not give it the same again")


def _why_finite(operations: Iterable[Op], had: Mapping[str, Any]) -> Iterator[str]:
    anew = {op.type for op in _with_inner(operations) if any(output.name not in had for output in op.outputs)}
    drawn = sorted(anew & UNSEEDED)
    if drawn:
        yield f"The step draws random numbers by {', '.join(drawn)}, which draws others when it is run again."


def _with_inner(operations: Iterable[Op]) -> Iterator[Op]:
    """Yield some operations, and those of the branches, loops and functions that they run."""
    for op in operations:
        yield op
        for graph in inner_graphs(op):
            yield from _with_inner(graph.get_operations())
