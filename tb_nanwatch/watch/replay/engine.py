"""The replay of a bad step: run it again, walk back to the first bad values, and return what was found as a record."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import tensorflow as tf

from tb_nanwatch.schema.records import Replay, Role, Variable
from tb_nanwatch.watch.boundary import attempt
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.record.draws import Draws
from tb_nanwatch.watch.replay.chain import chains_of
from tb_nanwatch.watch.replay.dump import dumped, folder_for_dump
from tb_nanwatch.watch.replay.failure import replay_of_failure
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.origin import Origins
from tb_nanwatch.watch.replay.phases import Phases
from tb_nanwatch.watch.replay.step_trace import StepTrace, TracedUpdate
from tb_nanwatch.watch.replay.trial import Scope
from tb_nanwatch.watch.replay.walk import Walk
from tb_nanwatch.watch.tf_internals import is_dumping

_BEFORE_UPDATE: Final[frozenset[Role]] = frozenset({"input", "tensor", "loss", "gradient", "clipped"})


@dataclass(frozen=True)
class ReplayLimits:
    """The limits of a replay.

    Attributes:
        seconds: the time after which the replay ends without a result.
    """

    seconds: float = 120.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a bad step before it runs again.

    Attributes:
        variables: the watched variables, in column order.
        described: what the header says of each.
        owners: where layers and variables stand in the user's models.
        has_several: whether the step has several optimizers.
        roles: the roles of what was non-finite in it; empty if that is not known.
        bad_variables: the names of the variables that the update of the step before made non-finite.
        gradient_sizes: in column order, the root of the mean square of that update's gradient.
        is_first_update: whether the update that made variables non-finite was the first that was watched.
        error: the error that ended the step; ``None`` if the step ended by itself.
        draws: what the step drew, as far as its guard could hand it out; ``None`` if that is not known.
        is_microbatch: whether the call is a micro-batch. It may have ended, and then what it wrote, such as the
            program's sums, is as it left it and not as it found it.
    """

    variables: Sequence[Any]
    described: Sequence[Variable]
    owners: Owners = field(default_factory=Owners)
    has_several: bool = False
    roles: frozenset[Role] = frozenset()
    bad_variables: frozenset[str] = frozenset()
    gradient_sizes: Sequence[float] = ()
    is_first_update: bool = False
    error: tf.errors.OpError | None = None
    draws: Draws | None = None
    is_microbatch: bool = False

    @property
    def scope(self) -> Scope:
        """How much of the step is in question."""
        if self.bad_variables:
            return "last update"
        if self.roles & _BEFORE_UPDATE:
            return "gradients"
        return "state" if "state" in self.roles else "whole step"


class Tracer(Protocol):
    """Traces a bad step again. Each way to run a step has one."""

    def traces(self, evidence: Evidence, limits: ReplayLimits) -> Generator[StepTrace, None, None]:
        """Yield traces of the step. The next one is asked for only if a trace has shown no non-finite value.

        Raises:
            CannotReplayError: if the step cannot be traced again.
        """

    def applied_update(self, evidence: Evidence) -> Replay | None:
        """Return the operation that applied an update which is over; ``None`` if only a trace can name it."""


def replay(
    tracer: Tracer, evidence: Evidence, *, limits: ReplayLimits, logdir: str = "", dump: str | None = None
) -> Replay:
    """Run a bad step again while its operations report, and leave every variable as it was.

    Args:
        tracer: traces the step.
        evidence: what is known of the step.
        limits: the limits of the replay.
        logdir: the directory of the run.
        dump: the folder in it for the dump of TensorFlow's debugger; ``None`` for no dump. If the folder exists, the
            next free name is used: ``dump-2``.

    Returns:
        What was found. A replay never raises.
    """
    began_s = time.monotonic()
    folder, notes = _folder(logdir, dump)

    def found() -> Replay:
        with dumped(None if folder is None else os.path.join(logdir, folder)):
            return tracer.applied_update(evidence) or _first_found(tracer, evidence, limits)

    result = attempt(found, failed=lambda reason: Replay("failed", (f"The step could not be run again: {reason}.",)))
    return Replay(result.outcome, (*result.notes, *notes), result.chains, time.monotonic() - began_s, folder)


def _folder(logdir: str, dump: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the folder for the dump; if one is asked for and cannot be used, ``None`` and the reason."""
    if dump is None:
        return None, ()
    if is_dumping():
        return None, ("TensorFlow's debugger was on already, and what it wrote of the replay is in its own dump.",)

    def refused(reason: str) -> tuple[None, tuple[str, ...]]:
        return None, (f"The debugger's dump could not be written: {reason}.",)

    return attempt(lambda: (folder_for_dump(logdir, dump), ()), failed=refused)


def _first_found(tracer: Tracer, evidence: Evidence, limits: ReplayLimits) -> Replay:
    """Return what the first trace shows that shows anything, or else what the first trace says."""
    first: Replay | None = None
    with closing(tracer.traces(evidence, limits)) as traces:
        for trace in traces:
            found = _found_in(trace, evidence)
            if found.outcome == "found":
                return found
            first = first or found
    return first or Replay("finite")


def _found_in(trace: StepTrace, evidence: Evidence) -> Replay:
    staged = [(update, trace.stages(update)) for update in trace.updates]
    error = trace.run([sink for _, stages in staged for _, sinks in stages for sink in sinks])
    written, outside_step = trace.written_outside()
    walk = Walk(trace.flow, trace.is_bad, trace.value, written)
    if evidence.error is not None:
        return replay_of_failure(trace, walk, error=error, original=evidence.error, outside_step=outside_step)
    names = Names(trace)
    judged = [
        (stages, Origins(Phases(names, update, _is_loss_bad(evidence, walk, update), outside_step), walk))
        for update, stages in staged
    ]
    chains = trace.accepted(chains_of(walk, judged), walk)
    if not chains:
        return Replay("finite", tuple(trace.notes_on_finite()))
    return Replay("found", tuple(trace.notes_on_found(chains, walk)), chains)


def _is_loss_bad(evidence: Evidence, walk: Walk, update: TracedUpdate) -> bool:
    """Return whether a loss was non-finite: by the records, or without records, by the replay."""
    return "loss" in evidence.roles if evidence.roles else any(walk.is_reached(loss) for loss in update.losses)
