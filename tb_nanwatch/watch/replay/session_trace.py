"""The trace of a step that a session runs, for the replay: the session's own graph, run again with the same feed."""

from __future__ import annotations

from collections.abc import Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import Link, Operation, Replay
from tb_nanwatch.watch.graphs import Op, Tensor, ancestors
from tb_nanwatch.watch.guard.state import restored_in_session
from tb_nanwatch.watch.record.draws import UNSEEDED, note_on_new_draws
from tb_nanwatch.watch.record.intake import FedCall, name_of_fed, rows_of_sparse, source_read
from tb_nanwatch.watch.replay.engine import Evidence, ReplayLimits
from tb_nanwatch.watch.replay.execution import range_of
from tb_nanwatch.watch.replay.failure import failed_op
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.probe import Node, Probe
from tb_nanwatch.watch.replay.session_flow import (
    VARIABLES,
    SessionBoundaries,
    add_reports,
    hides_operations,
    users_scope,
)
from tb_nanwatch.watch.replay.side_writes import SideWrites, Writes
from tb_nanwatch.watch.replay.source_lines import shown_frames, stack_of, users_line
from tb_nanwatch.watch.replay.step_trace import (
    CannotReplayError,
    Chains,
    NamedInputs,
    Stages,
    TracedUpdate,
    Watched,
    check_repeatable,
    expired,
)
from tb_nanwatch.watch.replay.walk import Walk
from tb_nanwatch.watch.row.measure import dense_values
from tb_nanwatch.watch.tf_internals import inner_graphs, unfinalize
from tb_nanwatch.watch.variables import READS, handle_of, read_first, variable_writes

if TYPE_CHECKING:
    from tb_nanwatch.watch.drivers.session_v1.plan import Built

_INSIDE: Final = (
    "The first bad value arose inside a loop or a function, into which a replay of a session's graph does not look."
)
_COMPUTED: Final = "The update could not be replayed: its inputs other than the gradients are unknown."
_APPLIES: Final = ("Apply", "ResourceApply", "SparseApply", "ResourceSparseApply")


@dataclass(frozen=True, eq=False)
class SessionTracer:
    """Traces a run of a session again.

    Attributes:
        built: the step.
        session: the session that ran it.
        call: what was fed.
        gradients: the placeholders that bring gradients, see
            :func:`~tb_nanwatch.watch.record.intake.fed_gradients`.
        others: what the runs of the session wrote outside the step.
    """

    built: Built
    session: Any
    call: FedCall
    gradients: Mapping[str, int]
    others: Writes

    def traces(self, evidence: Evidence, limits: ReplayLimits) -> Generator[SessionTrace, None, None]:
        """See :class:`~tb_nanwatch.watch.replay.engine.Tracer`."""
        with _unfinished(self.built.graph):
            yield SessionTrace(self, evidence, limits)
            before = self._with_values_before_overwrites()
            if before is not None:
                yield SessionTrace(before, evidence, limits)

    def applied_update(self, evidence: Evidence) -> Replay | None:
        """Return the operation that applied the update of the step before, which made a variable bad.

        It is the only operation that writes the variable, and its variable and gradient were finite. Its slots were its
        own. Every other input has to be a constant, because its value of then is not known.
        """
        if not evidence.bad_variables:
            return None
        with _unfinished(self.built.graph):
            trace = SessionTrace(self, evidence, ReplayLimits())
            chains = [trace.applied_to(variable) for variable in evidence.variables]
        found = tuple(chain for chain in chains if chain is not None)
        if {chain[0].variable for chain in found} != evidence.bad_variables:
            return Replay("failed", (_COMPUTED,))
        return Replay("found", (), found)

    def _with_values_before_overwrites(self) -> SessionTracer | None:
        """Return the same run with the values that reference variables had before another fetch overwrote them."""
        before = self.others.values_before()
        reads = {name: source_read(self.built.graph.get_tensor_by_name(name).op) for name in self.call.entered}
        had = {
            name: np.broadcast_to(before[source.name], np.shape(self.call.entered[name]))
            for name, source in reads.items()
            if source is not None and source.name in before
        }
        return replace(self, call=replace(self.call, entered={**self.call.entered, **had})) if had else None


class SessionTrace:
    """See :class:`~tb_nanwatch.watch.replay.step_trace.StepTrace`."""

    def __init__(self, tracer: SessionTracer, evidence: Evidence, limits: ReplayLimits) -> None:
        """Prepare a trace that has not run."""
        self._tracer, self._evidence, self._limits = tracer, evidence, limits
        self._built, self._call = tracer.built, tracer.call
        self._probe = Probe(time_limit_s=limits.seconds)
        self._values: dict[str, Any] = {}
        self._needed: set[Op] = set()
        self._written: Mapping[str, Sequence[Node]] = {}
        self._outside_step: Collection[Op] = ()
        self.flow = Flow(self._probe, SessionBoundaries(self._call.fed.keys()))

    @cached_property
    def updates(self) -> Sequence[TracedUpdate]:
        """See the protocol."""
        inputs = self._built.inputs
        clipped = [dense_values(gradient) for gradient, _ in inputs.pairs]
        raw = clipped if inputs.raw is None else [dense_values(gradient) for gradient in inputs.raw]
        return [TracedUpdate([] if inputs.loss is None else [inputs.loss], raw, clipped, inputs.variables)]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """See the protocol."""
        return self._built.tensors

    @cached_property
    def inputs(self) -> NamedInputs:
        """See the protocol."""
        fed = self._call.fed
        rows = rows_of_sparse(fed)
        sparse = {name.removesuffix("values:0") for name in rows}
        shapes = [np.shape(value) for name, value in fed.items() if f"{name.rpartition('/')[0]}/" not in sparse]
        arguments = {name: name_of_fed(name) for name in fed}
        return NamedInputs(arguments, shapes, rows, gradients=self._tracer.gradients)

    @property
    def watched(self) -> Watched:
        """See the protocol."""
        return Watched(self._evidence.variables, self._evidence.described, self._evidence.owners)

    def stages(self, update: TracedUpdate) -> Stages:
        """See the protocol."""
        is_in_question = self._evidence.scope in ("state", "whole step")
        scalars = self._built.guard.observation.tensors.scalars
        return [
            ("forward", [*self._built.tensors.values(), *update.losses]),
            ("backward", [gradient for gradient in update.raw if gradient is not None]),
            ("clip", [gradient for gradient in update.clipped if gradient is not None]),
            ("update", list(scalars.found) if scalars is not None and is_in_question else []),
            ("state", list(self._built.statistics.values()) if is_in_question else []),
        ]

    def run(self, sinks: Sequence[Tensor]) -> tf.errors.OpError | None:
        """See the protocol. If an error ended the step, only what its operation needs runs."""
        graph, fed, error = self._built.graph, self._call.fed, self._evidence.error
        failed = None if error is None else failed_op(error, [graph])
        if error is not None and failed is None:
            raise CannotReplayError("which of its operations ended with an error is not known")
        roots = sinks if failed is None else list(failed.inputs)
        self._needed = ancestors(roots, stop=lambda tensor: tensor.name in fed)
        check_repeatable(_with_inner(self._needed))
        side_writes = SideWrites.of(self._tracer.others.now, self._needed, self._call)
        reporting = self._needed | side_writes.operations
        reports = add_reports(self._probe, graph, [op for op in graph.get_operations() if op in reporting])
        values = self._run_reports(reports, side_writes.values)
        if failed is not None and not self._fails_again(failed):
            return None
        self._written = side_writes.bad(values, first=len(self._probe.nodes))
        self._outside_step = side_writes.only
        return error

    def _run_reports(self, reports: Sequence[Op], values: Sequence[Tensor]) -> Sequence[Any]:
        with self._variables_restored(self._needed):
            try:
                _, seen = self._tracer.session.run([reports, values], {**self._call.fed, **self._call.entered})
            except tf.errors.OpError:
                if not self._probe.is_expired:
                    raise
                raise expired(self._limits.seconds) from None
        return list(seen)

    def _fails_again(self, op: Op) -> bool:
        with self._variables_restored(ancestors([op])):
            try:
                self._tracer.session.run(op, dict(self._call.fed))
            except tf.errors.OpError as error:
                is_same = failed_op(error, [self._built.graph]) is op
                return is_same and type(error) is type(self._evidence.error)
        return False

    def _variables_restored(self, needed: set[Op]) -> AbstractContextManager[None]:
        return restored_in_session(self._tracer.session, (handle for _, handle in variable_writes(needed)))

    def written_outside(self) -> tuple[Mapping[str, Sequence[Node]], Collection[Op]]:
        """See the protocol."""
        return self._written, self._outside_step

    def value(self, outside: Tensor) -> Any:
        """Return what was fed for a tensor, or the value of a variable as the bad step read it."""
        if outside.name in self._call.fed:
            return np.asarray(self._call.fed[outside.name])
        if outside.name not in self._values:
            self._values[outside.name] = self._value_read(outside)
        return self._values[outside.name]

    def _value_read(self, source: Tensor) -> Any:
        reads = [self._built.graph.get_tensor_by_name(name).op for name in self._call.entered]
        of_source = [op for op in reads if (read := source_read(op)) is not None and read.name == source.name]
        # A read that waits for something may come after the step's own write.
        free = next((op.outputs[0].name for op in of_source if not op.control_inputs), None)
        if free is not None:
            return self._call.entered[free]
        # A read of the user may run what the user makes wait before it, so the replay reads by an operation of its own.
        return self._tracer.session.run(read_first(self._built.graph, source))

    def is_bad(self, outside: Tensor) -> bool:
        """See the protocol."""
        array = np.asarray(self.value(outside))
        return array.dtype.kind in "fcV" and not bool(np.isfinite(array).all())

    def variable_key(self, outside: Tensor) -> Hashable | None:
        """See the protocol."""
        return str(outside.name) if outside.op.type in VARIABLES else None

    def key_of(self, variable: Any) -> Hashable:
        """See the protocol."""
        return str(handle_of(variable).name)

    def variable_name(self, outside: Tensor) -> str | None:
        """See the protocol."""
        return str(outside.op.name)

    def variable_behind(self, tensor: Tensor, passing: frozenset[str]) -> Tensor | None:
        """See the protocol. The read of a reference variable is an identity."""
        while tensor.op.type in passing | READS | {"Identity"}:
            tensor = tensor.op.inputs[0]
        return tensor if tensor.op.type in VARIABLES else None

    def name_of_constant(self, op: Op) -> str | None:
        """Return the name of a constant in the graph."""
        return str(op.name)

    def name_of_captured(self, outside: Tensor) -> str | None:
        """Return ``None``: a session's graph captures no tensor."""
        return None

    def scope(self, op: Op, layers: Collection[str | None]) -> str | None:
        """See the protocol."""
        return users_scope(op.name, self.flow.stack(op), layers=layers)

    def hides_operations(self, op: Op) -> bool:
        """See the protocol."""
        return hides_operations(op)

    def accepted(self, chains: Chains, walk: Walk) -> Chains:
        """See the protocol."""
        return self._tracer.others.without_doubtful(chains)

    def notes_on_found(self, chains: Chains, walk: Walk) -> Iterator[str]:
        """See the protocol."""
        nodes = [origin.node for origin in walk.origins if origin.is_origin and origin.node is not None]
        if any(hides_operations(node.op) for node in nodes) and chains[0][0].op is None:
            yield _INSIDE
        yield from self._tracer.others.notes_on(walk.origins)

    def notes_on_finite(self) -> Iterator[str]:
        """See the protocol."""
        had = self._call.entered
        operations = _with_inner(self._needed)
        anew = {op.type for op in operations if any(output.name not in had for output in op.outputs)}
        yield from note_on_new_draws(anew & UNSEEDED)

    def applied_to(self, variable: Any) -> tuple[Link] | None:
        """Return the chain of the operation that made a variable bad; ``None`` if it did not, or is not known."""
        evidence = self._evidence
        described = evidence.described[[other is variable for other in evidence.variables].index(True)]
        if described.name not in evidence.bad_variables:
            return None
        source, built = handle_of(variable), self._built
        undoing = {op for op in built.update_ops if "nanwatch/" in op.name}
        needed = ancestors([built.train_op]) & set(built.update_ops)
        writers = variable_writes(needed)
        appliers = [op for op, written in writers if written.name == source.name and op not in undoing]
        if len(appliers) != 1 or not appliers[0].type.startswith(_APPLIES) or not self._is_known(appliers[0]):
            return None
        op, stack = appliers[0], stack_of(appliers[0])
        counts = range_of(np.asarray(self.value(source))).counts
        return (
            Link(
                op=Operation(op.type, op.name),
                phase="update",
                layer=described.layer,
                kind=counts.kind or "nan",
                source=users_line(stack),
                variable=described.name,
                counts=counts,
                stack=shown_frames(stack),
            ),
        )

    def _is_known(self, applier: Op) -> bool:
        """Return whether each input of an operation was finite: a variable, a gradient, a slot or a constant."""
        gradients = {tensor.name for tensor in self.updates[0].clipped if tensor is not None}
        for tensor in applier.inputs:
            if tensor.op.type in VARIABLES or not tensor.dtype.is_floating or tensor.name in gradients:
                continue
            value = tf.get_static_value(tensor)
            behind = ancestors([tensor])
            is_slot = any(op.type in VARIABLES for op in behind) and not any(op.type == "Placeholder" for op in behind)
            if not is_slot and (value is None or not np.isfinite(value).all()):
                return False
        return True


@contextmanager
def _unfinished(graph: Any) -> Iterator[None]:
    """Let operations be added to a finished graph. No operation of the user depends on them."""
    was_finished = graph.finalized
    unfinalize(graph)
    try:
        yield
    finally:
        if was_finished:
            graph.finalize()


def _with_inner(operations: Iterable[Op]) -> Iterator[Op]:
    """Yield some operations, and those of the branches, loops and functions that they run."""
    for op in operations:
        yield op
        for graph in inner_graphs(op):
            yield from _with_inner(graph.get_operations())
