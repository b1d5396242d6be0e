"""More about a bad step: its batch is saved, the step is replayed, and the alert takes both in."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.diagnosis.notes import unfinished_sentence
from tb_nanwatch.diagnosis.sightings import step_before
from tb_nanwatch.schema.records import Alert, Finding, Replay, Verdict
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.drivers.driver import Driver
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.record.archive import SavedBatch, save_batch
from tb_nanwatch.watch.record.batch import StepCall
from tb_nanwatch.watch.record.incident import finding_of, gradient_sizes_before, samples_of
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.replay import Evidence, ReplayLimits
from tb_nanwatch.watch.replay.failure import cause_of

MOST_BATCHES: Final = 16
"""The most batches that one watch saves: a run under policy "record" may meet bad steps without end."""
_NO_FAULT: Final = (tf.errors.OutOfRangeError, tf.errors.CancelledError, tf.errors.AbortedError)
"""How a data set ends, and how other operations end beside one that failed."""
_REPEATABLE: Final = (tf.errors.InvalidArgumentError, tf.errors.InternalError)
"""Errors that follow from an operation's inputs, so a replay meets them again. Full memory does not."""


class Investigation:
    """Finds out more about the bad steps of one watch."""

    def __init__(self, options: LoopOptions, plan: Plan, boundary: Boundary) -> None:
        """Begin before the first bad step.

        Args:
            options: the user's.
            plan: knows the variables and their owners.
            boundary: of the watch.
        """
        self._options, self._plan, self._boundary = options, plan, boundary
        self._batches_left = MOST_BATCHES
        self._has_replayed = False
        self._tolerated: set[str] = set()

    def tolerate(self, arguments: Iterable[str]) -> None:
        """Never report these arguments as an origin."""
        self._tolerated |= set(arguments)

    def bad_arguments(self, call: StepCall) -> tuple[Finding, ...]:
        """Return the non-finite arguments of a call, without those that are tolerated."""
        return tuple(found for found in call.findings() if found.name not in self._tolerated)

    def of_bad_step(self, alert: Alert, call: StepCall, *, driver: Driver) -> Alert:
        """Save the batch of a bad step, replay the step, and return its alert with both.

        Args:
            alert: of the step.
            call: of the step.
            driver: replays it.
        """
        nonfinite = frozenset(finding.name for finding in alert.findings if finding.role == "weight")
        # The previous step's update made those variables non-finite, and this call has the next step's batch.
        saved = SavedBatch(None) if nonfinite else self._save(call, alert, samples_of(alert))
        found = self._boundary.attempt(
            "run the bad step again",
            lambda: self._replay(alert, call, nonfinite=nonfinite, driver=driver),
            otherwise=None,
        )
        if saved.path is None and not nonfinite and found is not None and found.chains:
            saved = self._save(call, alert, found.chains[0][0].samples)
        return replace(alert, replay=found, batch=saved.path, notes=(*alert.notes, *saved.notes, *call.notes))

    def of_unfinished_step(
        self, alert: Alert, error: tf.errors.OpError, call: StepCall | None, *, driver: Driver
    ) -> Alert | None:
        """Save the batch of a step that an error ended, replay the step, and return its alert with both.

        Args:
            alert: of the step.
            error: that ended it.
            call: of the step; ``None`` if its arguments are unknown.
            driver: replays it.

        Returns:
            ``None`` where a replay could show nothing.
        """
        if call is None or self._plan.replicas is not None or not isinstance(error, _REPEATABLE):
            return None
        found = None
        if self._options.replay:
            evidence = evidence_of(self._plan, error=error)
            found = driver.replay(call, evidence, limits=ReplayLimits(), logdir=self._options.logdir)
        findings = (finding_of(found.chains[0][0]),) if found is not None and found.chains else ()
        saved = self._save(call, alert, findings[0].samples if findings else ())
        return replace(alert, findings=findings, replay=found, batch=saved.path, notes=(*alert.notes, *saved.notes))

    def _save(self, call: StepCall, alert: Alert, samples: Sequence[int]) -> SavedBatch:
        if not self._options.save_batch or self._batches_left == 0:
            return SavedBatch(None)
        is_before_window = alert.error is not None or not len(alert.window)
        step = alert.step if is_before_window else int(alert.window.last_step[-1])
        saved = self._boundary.attempt(
            "save the batch of the bad step",
            lambda: save_batch(self._options.logdir, call, step=step, samples=samples),
            otherwise=SavedBatch(None),
        )
        self._batches_left -= saved.path is not None
        return saved

    def _replay(self, alert: Alert, call: StepCall, *, nonfinite: frozenset[str], driver: Driver) -> Replay | None:
        was_so_before = bool(nonfinite) and alert.step == alert.first_step
        if not self._options.replay or was_so_before or not self._may_replay(alert):
            return None
        plan = self._plan
        evidence = evidence_of(
            plan,
            roles=frozenset(finding.role for finding in alert.findings),
            bad_variables=nonfinite,
            gradient_sizes=gradient_sizes_before(alert, plan.described) if nonfinite else (),
            is_first_update=bool(nonfinite) and step_before(alert) == alert.first_step,
            is_microbatch=alert.microbatch is not None,
        )
        dump = os.path.join("debugger", f"step-{alert.step}") if self._options.keep_dump else None
        return driver.replay(call, evidence, limits=ReplayLimits(), logdir=self._options.logdir, dump=dump)

    def _may_replay(self, alert: Alert) -> bool:
        """Return whether the state that a bad step began with is still there. Replay only the first skipped step."""
        if self._options.policy == "skip" and not self._has_replayed:
            self._has_replayed = True
            return self._plan.ring is not None and self._plan.ring.on_host
        return self._options.policy == "raise" or alert.action == "raised"


def evidence_of(plan: Plan, **known: Any) -> Evidence:
    """Return the evidence for a replay: what the plan knows, and what is known about the step.

    Args:
        plan: of the watch.
        **known: other fields of :class:`~tb_nanwatch.watch.replay.Evidence`.
    """
    columns = plan.columns
    return Evidence(columns.variables, plan.described, has_several=plan.has_several, owners=columns.owners, **known)


def is_fault(error: tf.errors.OpError) -> bool:
    """Return whether an error says that a step failed. The end of a data set does not."""
    return not isinstance(error, _NO_FAULT)


def error_line(error: tf.errors.OpError) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {cause_of(error)}"


def add_to_error(error: tf.errors.OpError, alert: Alert, verdict: Verdict, *, logdir: str) -> None:
    """Add a verdict to the error that ended a step: as a note, or before Python 3.11 as a warning."""
    found = verdict.text if alert.findings else unfinished_sentence(alert)
    text = " ".join([found, *(alert.replay.notes if alert.replay else ())])
    whole = f"tb_nanwatch: {text} For more: nanwatch {logdir}"
    if hasattr(error, "add_note"):
        error.add_note(whole)
    else:
        warnings.warn(whole, stacklevel=2)
