"""The trace of a step that is a Python function, for the replay: traced anew with its operations reporting."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.graphs import Op, Tensor
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.record.draws import NO_DRAWS, DrawFeed, note_on_new_draws
from tb_nanwatch.watch.replay.arguments import Arguments
from tb_nanwatch.watch.replay.creation import name_of_captured, name_of_constant
from tb_nanwatch.watch.replay.engine import Evidence, ReplayLimits, replay
from tb_nanwatch.watch.replay.failure import account_of, failed_op
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.instrument import Instrument
from tb_nanwatch.watch.replay.last_update import clear_bad_elements, undo_update
from tb_nanwatch.watch.replay.names import without_numbers
from tb_nanwatch.watch.replay.probe import Node, Probe, constant_of
from tb_nanwatch.watch.replay.step_trace import (
    CannotReplayError,
    Chains,
    NamedInputs,
    Stages,
    TracedUpdate,
    Watched,
    expired,
)
from tb_nanwatch.watch.replay.tracing import DrawnOtherwiseError, TracedFunction, trace
from tb_nanwatch.watch.replay.trial import Trial
from tb_nanwatch.watch.replay.walk import Walk
from tb_nanwatch.watch.tf_internals import converted
from tb_nanwatch.watch.variables import READS, dtype_of, handle_of, name_of


def replay_function(call: Call, evidence: Evidence, *, watch: object, **options: Any) -> Replay:
    """Run a step that is a Python function again; see :func:`~tb_nanwatch.watch.replay.engine.replay`.

    Args:
        call: the call of the step.
        evidence: what is known of the step.
        watch: the watch whose step it is.
        **options: the other arguments of a replay.
    """
    return replay(FunctionTracer(call, watch), evidence, **options)


@dataclass(frozen=True, eq=False)
class FunctionTracer:
    """Traces the call of a step again.

    Attributes:
        call: the call.
        watch: the watch whose step it is.
    """

    call: Call
    watch: object

    def traces(self, evidence: Evidence, limits: ReplayLimits) -> Generator[FunctionTrace, None, None]:
        """See :class:`~tb_nanwatch.watch.replay.engine.Tracer`."""
        try:
            trace = self._trace(evidence, limits)
        except DrawnOtherwiseError:
            evidence = replace(evidence, draws=None)
            trace = self._trace(evidence, limits)
        yield trace
        if evidence.is_first_update:
            # Only before the first update it is not known whether the slots were finite.
            yield self._trace(evidence, limits, are_slots_bad_before=True)

    def applied_update(self, evidence: Evidence) -> Replay | None:
        """Return ``None``: an update that is over is traced again."""
        return None

    def _trace(self, evidence: Evidence, limits: ReplayLimits, *, are_slots_bad_before: bool = False) -> FunctionTrace:
        probe = Probe(time_limit_s=limits.seconds)
        feed = DrawFeed(evidence.draws or NO_DRAWS)
        handles = [handle_of(variable) for variable in evidence.variables]
        trial = Trial(
            self.watch,
            evidence.scope,
            {id(handle): size for handle, size in zip(handles, evidence.gradient_sizes, strict=False)},
            evidence.has_several,
            are_slots_bad_before,
            owners=evidence.owners,
            count_operations=lambda: len(probe.nodes),
        )
        instrument = Instrument(probe, feed, lets_labels_pass=evidence.error is None)
        arguments = Arguments.of(self.call)
        step = converted(self.call.function, is_converted=self.call.is_converted)
        traced = trace(
            lambda *leaves: arguments.call(step, leaves), arguments.leaves, trial=trial, instrument=instrument
        )
        return FunctionTrace(traced, arguments, evidence, limits)


@dataclass(frozen=True, eq=False)
class FunctionTrace:
    """See :class:`~tb_nanwatch.watch.replay.step_trace.StepTrace`.

    Attributes:
        traced: the step as a graph.
        arguments: the arguments of its call.
        evidence: what is known of the step.
        limits: the limits of the replay.
    """

    traced: TracedFunction
    arguments: Arguments
    evidence: Evidence
    limits: ReplayLimits

    @property
    def flow(self) -> Flow:
        """See the protocol."""
        return self.traced.flow

    @property
    def updates(self) -> Sequence[TracedUpdate]:
        """See the protocol."""
        return self.traced.trial.step_updates

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """See the protocol."""
        return self.traced.trial.tensors

    @cached_property
    def inputs(self) -> NamedInputs:
        """See the protocol."""
        graph, arguments = self.traced.graph, self.arguments
        shapes = [tuple(value.shape) for value in self.traced.values.values() if value.shape.rank]
        return NamedInputs(arguments.names(graph), shapes, arguments.rows(graph), arguments.numbers)

    @cached_property
    def watched(self) -> Watched:
        """The watched variables; before the first step, those that the step would train."""
        evidence = self.evidence
        variables = evidence.variables or [variable for update in self.updates for variable in update.variables]
        described = evidence.described or describe(variables, [None] * len(variables), evidence.owners)
        return Watched(variables, described, evidence.owners)

    def stages(self, update: TracedUpdate) -> Stages:
        """See the protocol."""
        later: Stages = [("update", update.updated), ("state", update.state)]
        if self._is_over:
            return later
        return [
            ("forward", [*update.tensors, *update.losses]),
            ("backward", [gradient for gradient in update.raw if gradient is not None]),
            ("clip", [gradient for gradient in update.clipped if gradient is not None]),
            *later,
        ]

    def run(self, sinks: Sequence[Tensor]) -> tf.errors.OpError | None:
        """See the protocol."""
        # Nothing in question may depend on the operation that ended the step.
        failed = None if self.evidence.error is None else failed_op(self.evidence.error, self.flow.graphs)
        try:
            self.traced.run([*sinks, *(() if failed is None else (failed,))], prepare=self._prepare)
        except tf.errors.OpError as error:
            if self.traced.instrument.probe.is_expired:
                raise expired(self.limits.seconds) from None
            if type(error) is not type(self.evidence.error):
                raise CannotReplayError(account_of(error, self.flow)) from None
            return error
        return None

    @property
    def _prepare(self) -> Callable[[Tensor], None] | None:
        """What sets a variable to the value that the step began with."""
        if self._is_over:
            return partial(undo_update, finite_before=self._cleared)
        return partial(clear_bad_elements, cleared=self._cleared) if self.evidence.is_microbatch else None

    @cached_property
    def _cleared(self) -> Sequence[Tensor]:
        """The handles of the variables whose bad elements are cleared before the run."""
        trial = self.traced.trial
        written = [] if trial.are_slots_bad_before else self.traced.written_handles
        handles = [handle_of(variable) for variable in self.evidence.variables]
        if self._is_over:
            return [*handles, *written]
        if self.evidence.is_microbatch:
            return [handle for handle in written if not any(handle is watched for watched in handles)]
        return []

    @property
    def _is_over(self) -> bool:
        return self.traced.trial.scope == "last update"

    def written_outside(self) -> tuple[Mapping[str, Sequence[Node]], Collection[Op]]:
        """Return nothing: a function is run alone."""
        return {}, ()

    def value(self, outside: Tensor) -> Any:
        """See the protocol."""
        value = self.traced.fed[outside.name]
        if value.dtype == tf.resource:
            value = tf.raw_ops.ReadVariableOp(resource=value, dtype=dtype_of(value))
        return value.numpy()

    def is_bad(self, outside: Tensor) -> bool:
        """See the protocol."""
        value = self.traced.fed[outside.name]
        if any(value is handle for handle in self._cleared) or (value.dtype == tf.resource and dtype_of(value) is None):
            return False
        array = np.asarray(self.value(outside))
        return array.dtype.kind in "fcV" and not bool(np.isfinite(array).all())

    def variable_key(self, outside: Tensor) -> Hashable | None:
        """See the protocol."""
        handle = self.traced.fed.get(outside.name)
        return id(handle) if handle is not None and handle.dtype == tf.resource else None

    def key_of(self, variable: Any) -> Hashable:
        """See the protocol."""
        return id(handle_of(variable))

    def variable_name(self, outside: Tensor) -> str | None:
        """See the protocol."""
        handle = self.traced.fed[outside.name]
        return self.evidence.owners.variable(handle) or name_of(handle)

    def variable_behind(self, tensor: Tensor, passing: frozenset[str]) -> Tensor | None:
        """See the protocol."""
        source = self.flow.original(tensor)
        while source.op.type in passing:
            source = self.flow.original(source.op.inputs[0])
        handle = source.op.inputs[0] if source.op.type in READS else source
        return self.flow.resource(handle) if handle.dtype == tf.resource else None

    def name_of_constant(self, op: Op) -> str | None:
        """See the protocol."""
        return name_of_constant(self.traced.instrument.uses(op), constant_of(op))

    def name_of_captured(self, outside: Tensor) -> str | None:
        """See the protocol."""
        return name_of_captured(self.traced.instrument.uses_of_captured(), self.traced.fed[outside.name])

    def scope(self, op: Op, layers: Collection[str | None]) -> str | None:
        """See the protocol."""
        parts = op.name.split("/")[:-1]
        own = (part for at, part in enumerate(parts, 1) if "/".join(parts[:at]) in self.traced.scopes)
        scope = "/".join(own)
        if not scope:
            return None
        plain = without_numbers(scope)
        return plain if scope not in layers and plain in layers else scope

    def hides_operations(self, op: Op) -> bool:
        """Return ``False``: the inside of every loop and function reports."""
        return False

    def accepted(self, chains: Chains, walk: Walk) -> Chains:
        """Return the chains; none if the second pass of an update damaged other variables than the first pass."""
        if not self._is_over:
            return chains
        updated = [
            pair for update in self.traced.trial.updates for pair in zip(update.variables, update.updated, strict=True)
        ]
        bad = {self.key_of(variable) for variable, value in updated if walk.is_reached(value)}
        named = zip(self.evidence.variables, self.evidence.described, strict=True)
        names = {described.name for variable, described in named if self.key_of(variable) in bad}
        return chains if names == self.evidence.bad_variables else ()

    def notes_on_found(self, chains: Chains, walk: Walk) -> Iterator[str]:
        """Yield nothing: the chains say all."""
        yield from ()

    def notes_on_finite(self) -> Iterator[str]:
        """See the protocol."""
        yield from note_on_new_draws(self.traced.instrument.feed.kinds_drawn_anew())
