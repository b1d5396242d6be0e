"""A replay: the bad step is run again, and what it shows becomes a record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import Link, Replay, Role, Variable
from tb_nanwatch.watch.boundary import attempt
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.replay.arguments import Arguments
from tb_nanwatch.watch.replay.describe import Description
from tb_nanwatch.watch.replay.drawn import Drawn, Feed
from tb_nanwatch.watch.replay.dump import dumped, folder_for_dump, is_debugger_on
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.phases import Phases, Stage
from tb_nanwatch.watch.replay.probe import Probe
from tb_nanwatch.watch.replay.refused import account_of, failed_op, place_of
from tb_nanwatch.watch.replay.refused import cause_of as _cause
from tb_nanwatch.watch.replay.run import (
    CannotReplayError,
    DrawnOtherwiseError,
    Traced,
    run,
    trace,
    written_handles,
)
from tb_nanwatch.watch.replay.settled import clear, go_back
from tb_nanwatch.watch.replay.trial import Given, Scope, Trial
from tb_nanwatch.watch.replay.walk import Visit, Walk
from tb_nanwatch.watch.tf_internals import converted
from tb_nanwatch.watch.variables import dtype_of, handle_of

Tensor = Any
_MOST_ORIGINS: Final = 8
_BEFORE_UPDATE: Final[frozenset[Role]] = frozenset({"input", "tensor", "loss", "gradient", "clipped"})


@dataclass(frozen=True)
class ReplayLimits:
    """What a replay may take.

    Attributes:
        seconds: after which it is broken off.
    """

    seconds: float = 120.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of the bad step before it is run again.

    Attributes:
        roles: of what was not finite in it; empty if nobody knows.
        variables: the watched variables, in column order.
        described: what the header says of each.
        spoilt: names of the variables that were bad as the step began, by the update of the step before.
        gradient_sizes: in column order, the root of the mean square of that update's gradient.
        has_several: whether the step has several optimizers.
        error: that ended the step; ``None`` where the step ended by itself.
        drawn: by the step, as far as its guard could hand it out; ``None`` where nothing is known of that.
        is_first_update: whether the update of the step before was the first that was watched, and spoilt a variable.
        owners: where layers and variables stand in the user's models.
        is_microbatch: whether the call is a micro-batch's. It may have ended, and then what it wrote, such as the
            program's sums, is as it left it and not as it found it.
    """

    roles: frozenset[Role]
    variables: Sequence[Any]
    described: Sequence[Variable]
    spoilt: frozenset[str] = frozenset()
    gradient_sizes: Sequence[float] = ()
    has_several: bool = False
    is_first_update: bool = False
    error: tf.errors.OpError | None = None
    owners: Owners = field(default_factory=Owners)
    drawn: Drawn | None = None
    is_microbatch: bool = False

    @property
    def handles(self) -> Sequence[Tensor]:
        """The resource handles of the variables."""
        return [handle_of(variable) for variable in self.variables]

    @property
    def scope(self) -> Scope:
        """How much of the step is in question."""
        if self.spoilt:
            return "last update"
        if self.roles & _BEFORE_UPDATE:
            return "gradients"
        return "state" if "state" in self.roles else "whole step"


def replay(
    call: Call,
    evidence: Evidence,
    *,
    watch: object,
    limits: ReplayLimits,
    logdir: str = "",
    dump: str | None = None,
) -> Replay:
    """Run a step again with every operation looked at, and leave every variable as it was.

    Args:
        call: of the step.
        evidence: what is known of it.
        watch: whose step it is.
        limits: what it may take.
        logdir: the run's directory.
        dump: folder in it for what TensorFlow's debugger writes of the replay; ``None`` for none. If it is there
            already, the next that is not: ``dump-2``.

    Returns:
        What came of it; it never raises.
    """
    began_s = time.monotonic()
    folder, notes = _folder(logdir, dump)

    def again() -> Replay:
        with dumped(None if folder is None else os.path.join(logdir, folder)):
            return _replay(call, evidence, watch=watch, limits=limits)

    result = attempt(again, failed=lambda reason: Replay("failed", (f"The step could not be run again: {reason}.",)))
    return Replay(result.outcome, (*result.notes, *notes), result.chains, time.monotonic() - began_s, folder)


def _folder(logdir: str, dump: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the folder to dump to, and if there is none though one is wanted, why."""
    if dump is None:
        return None, ()
    if is_debugger_on():
        return None, ("TensorFlow's debugger was on already, and what it wrote of the replay is in its own dump.",)

    def refused(reason: str) -> tuple[None, tuple[str, ...]]:
        return None, (f"The debugger's dump could not be written: {reason}.",)

    return attempt(lambda: (folder_for_dump(logdir, dump), ()), failed=refused)


def _replay(call: Call, evidence: Evidence, *, watch: object, limits: ReplayLimits) -> Replay:
    try:
        found = _replay_once(call, evidence, watch=watch, limits=limits)
    except DrawnOtherwiseError:
        evidence = replace(evidence, drawn=None)
        found = _replay_once(call, evidence, watch=watch, limits=limits)
    if found.outcome == "found" or not evidence.is_first_update:
        return found
    # Only of the first update nobody knows whether its slots were finite before it.
    return _replay_once(call, evidence, watch=watch, limits=limits, are_slots_bad_before=True)


def _replay_once(
    call: Call, evidence: Evidence, *, watch: object, limits: ReplayLimits, are_slots_bad_before: bool = False
) -> Replay:
    feed = Feed(evidence.drawn or Drawn((), {}))
    probe = Probe(time_limit_s=limits.seconds, feed=feed, lets_labels_pass=evidence.error is None)
    sizes = {id(handle): size for handle, size in zip(evidence.handles, evidence.gradient_sizes, strict=False)}
    several, owners = evidence.has_several, evidence.owners
    trial = Trial(watch, evidence.scope, sizes, several, are_slots_bad_before, owners=owners)
    arguments = Arguments.of(call)
    step = converted(call.function, is_converted=call.is_converted)
    traced = trace(lambda *leaves: arguments.call(step, leaves), arguments.leaves, trial=trial, probe=probe)
    rounds = [(given, _stages(given, trial.scope)) for given in traced.given]
    is_over = trial.scope == "last update"
    written = [] if are_slots_bad_before else written_handles(traced)
    cleaned, starting_from = [], None
    if is_over:
        cleaned = [*evidence.handles, *written]
        starting_from = partial(go_back, cleaned=cleaned)
    elif evidence.is_microbatch:
        cleaned = [handle for handle in written if not any(handle is watched for watched in evidence.handles)]
        starting_from = partial(clear, cleared=cleaned)
    try:
        sinks = [sink for _, stages in rounds for _, some in stages for sink in some]
        run(_with_failed(traced, evidence.error), sinks, starting_from=starting_from)
    except tf.errors.OpError as error:
        if probe.expired:
            raise CannotReplayError(f"it took longer than {limits.seconds:g} seconds and was broken off") from None
        if type(error) is not type(evidence.error):
            raise CannotReplayError(_account(error, traced)) from None
        met = error
    else:
        met = None
    called, rows, watched = arguments.names(traced.graph), arguments.rows(traced.graph), _watched(traced, evidence)
    names = Names(traced, called, *watched, arguments.numbers, rows, owners=owners)
    walk = Walk(traced.flow, partial(_was_bad, names, cleaned), names.value)
    if evidence.error is not None:
        return _behind_error(met, names, walk, own=failed_op(evidence.error, traced.flow.graphs))
    descriptions = [
        Description(names, Phases(names, given, is_loss_bad(evidence, walk, given)), walk) for given, _ in rounds
    ]
    chains = chains_of(walk, [(stages, of) for (_, stages), of in zip(rounds, descriptions, strict=True)])
    if is_over and not _explains(walk, traced, evidence):
        chains = ()
    return Replay("found", (), chains) if chains else Replay("finite", tuple(_why_finite(probe)))


def _with_failed(traced: Traced, error: tf.errors.OpError | None) -> Traced:
    """Return a trial that runs the operation that ended the step, though nothing in question may depend on it."""
    op = None if error is None else failed_op(error, traced.flow.graphs)
    return traced if op is None else replace(traced, besides=[*traced.besides, traced.flow.called_from(op.graph) or op])


def _behind_error(error: tf.errors.OpError | None, names: Names, walk: Walk, *, own: Any) -> Replay:
    """Return what was not finite before the operation that ended a step with an error.

    Inf among what an index is made of is no fault: a mask is such.

    Args:
        error: of the trial; ``None`` where it came to its end.
        names: of the trial's things.
        walk: through it.
        own: the operation of the trial that ended the step itself, if that is known.
    """
    traced = names.traced
    op = None if error is None else failed_op(error, traced.flow.graphs)
    if op is None:
        return Replay("finite", ("The step did not end so when it was run again.",))
    before = [place.node.number for sink in _behind(op, walk) for place in traced.flow.places(sink) if place.node]
    updates = sum(numbers.stop <= max(before, default=0) for numbers in traced.given[-1].earlier)
    phases = Phases(names, traced.given[updates], is_loss_bad=True)
    found = behind_failed(op, Description(names, phases, walk))
    # Of several operations that fail together, another one may be first the second time.
    return found if op is own else replace(found, notes=())


def behind_failed(op: Any, description: Description) -> Replay:
    """Return what was not finite before an operation that ended with an error, and where the operation stands.

    Args:
        op: of a trial that has run.
        description: of the trial.
    """
    chains = chains_of(description.walk, [([("forward", _behind(op, description.walk))], description)])
    note = f"The error is of {op.type}{place_of(op, description.walk.flow)}."
    return Replay("found" if chains else "finite", (note,), chains)


def _behind(op: Any, walk: Walk) -> list[Tensor]:
    return [tensor for tensor, is_direct in walk.flow.floating_behind(op) if is_direct or walk.has_nan(tensor)]


def _account(error: tf.errors.OpError, traced: Traced) -> str:
    """Return why a trial could not be run to its end, as the rest of a sentence."""
    op, reason = failed_op(error, traced.flow.graphs), _cause(error)
    # What a Python function of the program raised says enough.
    if op is None or op.type.endswith("PyFunc"):
        return reason
    return account_of(op, reason, place_of(op, traced.flow))


def _watched(traced: Traced, evidence: Evidence) -> tuple[Sequence[Any], Sequence[Variable]]:
    """Return the watched variables and what is said of each; before the first step, it is those that it would train."""
    variables = evidence.variables or [variable for given in traced.given for variable in given.variables]
    return variables, evidence.described or describe(variables, [None] * len(variables), evidence.owners)


def _stages(given: Given, scope: Scope) -> list[tuple[Stage, Sequence[Tensor]]]:
    """Return what of an update may have gone bad, in order of data flow."""
    update: list[tuple[Stage, Sequence[Tensor]]] = [("update", given.updated), ("state", given.state)]
    if scope == "last update":
        return update
    return [
        ("forward", [*given.tensors, *given.losses]),
        ("backward", [gradient for gradient in given.raw if gradient is not None]),
        ("clip", [gradient for gradient in given.clipped if gradient is not None]),
        *update,
    ]


def chains_of(
    walk: Walk, updates: Iterable[tuple[Iterable[tuple[Stage, Sequence[Tensor]]], Description]]
) -> tuple[tuple[Link, ...], ...]:
    """Walk back from all that may have gone bad, and return a chain from each origin, in order of data flow.

    All that belongs to an update of the step comes before all that belongs to the next.

    Args:
        walk: through the trial, which has run.
        updates: of the step, in its order: what of each may have gone bad, in order of data flow, and the description
            of what the walk comes by.
    """
    found: dict[Any, tuple[Description, Visit, Stage]] = {}
    samples: dict[Any, tuple[int, ...]] = {}
    for stages, description in updates:
        for stage, sinks in stages:
            for sink in sinks:
                # By the ways to this sink alone: what an infinity becomes on its way to a later one is another matter.
                for origin in [origin for origin in walk.back_from(sink) if is_settled(origin)]:
                    begin = description.begin(origin)
                    found.setdefault(begin.key, (description, begin, stage))
            # A sample that a mask kept from the loss may reach a gradient all the same.
            samples |= {key: of.samples(begin) for key, (of, begin, _) in found.items() if key not in samples}
    ordered = sorted(found.values(), key=lambda one: one[0].place(one[1], one[2]))
    return tuple(of.chain(begin, stage, samples[begin.key]) for of, begin, stage in ordered[:_MOST_ORIGINS])


def is_loss_bad(evidence: Evidence, walk: Walk, given: Given) -> bool:
    """Return whether a loss of the step was not finite, by the records, or where there are none, by the trial."""
    return "loss" in evidence.roles if evidence.roles else any(walk.is_reached(loss) for loss in given.losses)


def is_settled(origin: Visit) -> bool:
    """Return whether a walk's end is an origin: it was given nothing bad, as far as anybody saw."""
    return origin.look is None or not origin.look.inputs


def _explains(walk: Walk, traced: Traced, evidence: Evidence) -> bool:
    """Return whether an update that was gone through again spoilt the variables that it had spoilt, and no others."""
    updated = [pair for given in traced.trial.updates for pair in zip(given.variables, given.updated, strict=True)]
    spoilt = [handle_of(variable) for variable, value in updated if walk.is_reached(value)]
    names = zip(evidence.handles, evidence.described, strict=True)
    return evidence.spoilt == {of.name for handle, of in names if any(handle is one for one in spoilt)}


def _was_bad(names: Names, cleaned: Sequence[Tensor], placeholder: Tensor) -> bool:
    """Return whether an argument or a variable was bad as the trial began."""
    given = names.traced.fed[placeholder.name]
    if any(given is handle for handle in cleaned) or (given.dtype == tf.resource and dtype_of(given) is None):
        return False
    array = np.asarray(names.value(placeholder))
    return array.dtype.kind in "fcV" and not bool(np.isfinite(array).all())


def _why_finite(probe: Probe) -> Iterator[str]:
    drawn = sorted(probe.feed.kinds_anew())
    if drawn:
        yield f"The step draws random numbers by {', '.join(drawn)}, which draws others when it is run again."
