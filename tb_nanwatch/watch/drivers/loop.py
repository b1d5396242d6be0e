"""The host's part of a training loop: when to read the device, and what to do about a bad step."""

from __future__ import annotations

import atexit
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import tensorflow as tf

from tb_nanwatch.diagnosis.notes import lost_weights
from tb_nanwatch.diagnosis.sightings import step_before
from tb_nanwatch.errors import NonFiniteError
from tb_nanwatch.schema.records import Action, Alert, Finding, Policy, Replay, Verdict
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.drivers.microbatch_calls import MicrobatchCalls
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.drivers.outcome import Outcome
from tb_nanwatch.watch.drivers.unfinished import REPEATABLE, error_line, findings_of, is_fault, tell_user, text_of
from tb_nanwatch.watch.guard.guard import MESSAGE
from tb_nanwatch.watch.record.archive import SavedBatch, save_batch
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.record.incident import (
    gradient_sizes_before,
    message_of,
    samples_of,
    verdict_by_hand,
    verdict_of_alert,
)
from tb_nanwatch.watch.record.ring import Ring
from tb_nanwatch.watch.record.session import Session
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.replay import Evidence, ReplayLimits, replay
from tb_nanwatch.watch.row.microbatches import NONE_BAD, MicrobatchStore
from tb_nanwatch.watch.row.plan import Plan

_T = TypeVar("_T")
_running: ContextVar[Loop | None] = ContextVar("nanwatch_running", default=None)
_ACTIONS: Final[dict[Policy, Action]] = {"raise": "raised", "skip": "skipped", "record": "recorded"}
MOST_BATCHES: Final = 16
"""That one watch saves: a run that is only recorded may meet bad steps without end."""


_READ: Final = "read the steps, and records nothing more"
_LastLook = tuple[Alert | None, Call | None]
_BadCalls = tuple[Call | None, Call | None, tuple[Finding, ...]]
_NOT_LOOKED: Final[_LastLook] = (None, None)
_NO_CALLS: Final[_BadCalls] = (None, None, ())


class Loop:
    """Listens to the steps of a training loop.

    Attributes:
        boundary: around all that the host does after a step, but for the user's ``on_nonfinite`` and the act of the
            policy.
    """

    def __init__(self, options: LoopOptions, plan: Plan, writer: Writer) -> None:
        """Begin before the first step.

        Args:
            options: the user's.
            plan: of what is measured.
            writer: takes the messages.
        """
        self._options, self._plan, self._writer = options, plan, writer
        self._action: Action = _ACTIONS[options.policy]
        self._run = options.run
        self.boundary = Boundary()
        self._has_failed = False
        self._session: Session | None = None
        self._depth = 0
        self._runs = 0
        self._followers: list[Loop] = []
        self._is_closed = False
        self._calls = 0
        self._calls_due = 1
        self._flush_at_s = 0.0
        self._tolerated: set[str] = set()
        self._last_call: Call | None = None
        self._batches_left = MOST_BATCHES
        self._gave_up_at = -1
        self._has_replayed = self._has_met_error = False
        self._find_call: Callable[[], Call | None] | None = None
        self._microbatches, self._has_microbatches = MicrobatchCalls(), False
        # In a graph of TensorFlow 1 these are its session's.
        self.run_again: Callable[..., Replay] = replay
        self.last_values: Callable[[], Sequence[Any]] = lambda: plan.last_values
        self.accumulation: MicrobatchStore | None = None
        self.bad_microbatch: Call | None = None
        # Until it is closed, the program's end is what closes it.
        atexit.register(self._close_at_exit)

    def _close_at_exit(self) -> None:
        self.close(quietly=True)

    @property
    def options(self) -> LoopOptions:
        """What the user chose."""
        return self._options

    def tolerate(self, arguments: Iterable[str]) -> None:
        """Know arguments that are no origin if they are bad: what is wrong with them shows elsewhere."""
        self._tolerated |= set(arguments)

    @property
    def current_run(self) -> int:
        """The number of the step, run or traced at the moment, that catches what the guard raises; 0 for none."""
        return self._runs if self._depth else 0

    def join_outer(self) -> None:
        """If a step of another watch is being traced, let that watch ask after this one's bad steps after each."""
        outer = _running.get()
        if outer is not None and outer is not self and self not in outer._followers:
            outer._followers.append(self)

    def run(self, step: Callable[[], _T], call: Call | None, find_call: Callable[[], Call | None] | None = None) -> _T:
        """See :class:`~tb_nanwatch.watch.drivers.function.StepListener`.

        Args:
            step: runs it.
            call: its arguments; ``None`` if they are not known.
            find_call: asked for them where the step was bad.
        """
        self._find_call = find_call
        self._depth += 1
        self._runs += 1
        self._last_call = call
        self._microbatches.begin(call)
        outer = _running.set(self)
        try:
            result = step()
        except tf.errors.OpError as error:
            if MESSAGE in str(error):
                self._act(self._outcome(lambda: self._collect(call), is_bad=lambda: True))
            else:
                self.step_failed(error, call)
            raise
        finally:
            _running.reset(outer)
            self._depth -= 1
        self.after_step(call)
        for follower in self._followers:
            follower.after_step(call)
        if self._has_microbatches:
            self._end_microbatches(call)
        return result

    def _end_microbatches(self, call: Call | None) -> None:
        part = "keep the calls of micro-batches"
        self.boundary.attempt(part, lambda: self._microbatches.end(call, self._rows_written), otherwise=None)

    def note_accumulation(self) -> None:
        """Learn, as a step is traced or run eagerly, that it measures one more micro-batch or part of one."""
        if self._depth:
            self._has_microbatches = True
            self._microbatches.note_measure()

    def note_update(self) -> None:
        """Learn, as a step is traced or run eagerly, that it updates."""
        if self._depth:
            self._microbatches.note_update()

    def _rows_written(self) -> int:
        return 0 if self._plan.ring is None else self._plan.ring.rows_written()

    def _call_of_bad_microbatch(self, call: Call) -> Call | None:
        if self.bad_microbatch is not None:
            return self.bad_microbatch
        which = NONE_BAD if self._plan.accumulation is None else self._plan.accumulation.bad_call()
        return call if which == NONE_BAD else self._microbatches.bad(which, call)

    def replay_step(self, call: Call) -> Verdict:
        """See :meth:`~tb_nanwatch.watch.api.Watch.replay_step`."""
        session = self._session_now()
        step = 0 if session is None else session.next_step()
        plan = self._plan
        evidence = Evidence(
            frozenset(), plan.variables, plan.described, has_several=plan.has_several, owners=plan.owners
        )
        found = replay(call, evidence, watch=self, limits=ReplayLimits())
        return verdict_by_hand(found, self._plan.described, step=step, run=self._run)

    def step_begins(self, graph: Any, *, can_begin_again: bool) -> None:
        """See :class:`~tb_nanwatch.watch.drivers.function.StepListener`."""
        self._microbatches.begin_trace()
        self._plan.begin_trace(graph, can_begin_again=can_begin_again)

    def step_traced(self, graph: Any) -> None:
        """See :class:`~tb_nanwatch.watch.drivers.function.StepListener`."""
        self._plan.finish_trace(graph)

    def after_step(self, call: Call | None) -> None:
        """Ask after an incident where that is needed, and read the device when it is due.

        Args:
            call: the arguments of the step; ``None`` if they are not known.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        self._calls += 1
        if self._plan.ring is None:
            return
        if self._is_closed:
            self._is_closed = False
            atexit.register(self._close_at_exit)
        # Most steps need no more than this.
        if self._plan.polls or self._calls >= self._calls_due or time.monotonic() >= self._flush_at_s:
            self._act(self._outcome(lambda: self._after_step(call), is_bad=self._is_incident_waiting))

    def lose_step(self, *, is_bad: Callable[[], bool]) -> None:
        """Know that a step ran whose row could not be read.

        Args:
            is_bad: returns whether the step was.

        Raises:
            NonFiniteError: by policy ``"raise"``, if it was.
        """
        self._has_failed = True
        self._act(self._outcome_of_failure(is_bad))

    def _after_step(self, call: Call | None) -> Outcome | None:
        recorder = self._plan.ring
        # Of several processes none may learn of a bad step before the others do.
        if recorder is not None and self._polls(recorder) and self._has_news(recorder.incident()):
            return self._collect(call)
        if self._calls < self._calls_due and time.monotonic() < self._flush_at_s:
            return None
        outcome = self._collect(None)
        if outcome is None:
            self.boundary.attempt("look at the batch", lambda: self._note_harmless(call), otherwise=None)
        return outcome

    def _polls(self, recorder: Ring) -> bool:
        return self._plan.polls and (recorder.on_host or self._plan.has_peers)

    def _outcome(self, look: Callable[[], Outcome | None], *, is_bad: Callable[[], bool]) -> Outcome | None:
        """Look at what ran, and where that fails, or failed before, at whether it was bad and no more."""
        settled = -1 if self._session is None else self._session.last_handled
        found = None if self._has_failed else self.boundary.attempt(_READ, lambda: (look(),), otherwise=None)
        if found is not None:
            return found[0]
        self._has_failed = True
        # It may have failed when the incident was dealt with already.
        is_settled = self._session is not None and self._session.last_handled != settled
        return self._outcome_of_failure(lambda: is_settled or is_bad())

    def _outcome_of_failure(self, is_bad: Callable[[], bool]) -> Outcome | None:
        if self._options.policy != "raise" or not self.boundary.attempt("ask for a bad step", is_bad, otherwise=True):
            return None
        step = self.boundary.attempt("find the number of the bad step", self._take_incident, otherwise=None)
        seen = 0 if self._session is None else self._session.steps_seen
        return Outcome.without_verdict(
            run=self._run, step=step, steps_seen=seen, reason=self.boundary.reason, alert=None
        )

    def _is_incident_waiting(self) -> bool:
        return self._plan.ring is not None and self._has_news(self._plan.ring.incident())

    def _take_incident(self) -> int | None:
        """Clear the incident that waits, so that updates are no longer withheld, and return its step if it is known."""
        recorder = self._plan.ring
        number = None if recorder is None else recorder.incident()
        if recorder is not None:
            recorder.forget_incident()
        return number if self._plan.counted else None

    def close(self, *, quietly: bool = False) -> None:
        """Read and write what is left, and look at the variables once more.

        Args:
            quietly: to warn and not to raise, where nobody could catch it or another error is on its way.

        Raises:
            NonFiniteError: by policy ``"raise"``, if the last update left a variable non-finite, or a bad step was not
                asked after.
        """
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self._close_at_exit)
        outcome = self._outcome(self._last_look, is_bad=self._is_incident_waiting)
        self.boundary.attempt("write what was left", self._close_log, otherwise=None)
        try:
            self._act(outcome)
        except NonFiniteError as error:
            if not quietly:
                raise
            warnings.warn(str(error), stacklevel=2)

    def _last_look(self) -> Outcome | None:
        session = self._session_now()
        if session is None:
            return None
        self.boundary.attempt("keep what the bad step drew", self._take_drawn_if_bad, otherwise=None)
        alert = session.collect(action=self._action)
        if alert is None:
            alert, call = self.boundary.attempt(
                "look at the variables once more", lambda: self._after_last_update(session), otherwise=_NOT_LOOKED
            )
            alert = self._look_again(session, alert, call)
        return self._outcome_of(session, alert)

    def _take_drawn_if_bad(self) -> None:
        if self._is_incident_waiting():
            self._plan.take_drawn()

    def _after_last_update(self, session: Session) -> _LastLook:
        alert, call = self._pending(session), self._last_call
        if alert is None:
            return session.check_variables(self.last_values(), action=self._action), call
        return alert, None if call is None else self._call_of_bad_microbatch(call)

    def _close_log(self) -> None:
        if self._session is not None:
            self._session.close()
        self._writer.close()

    def _pending(self, session: Session) -> Alert | None:
        """Tell of a micro-batch that was bad and whose update did not come."""
        accumulation = self.accumulation or self._plan.accumulation
        number = NONE_BAD if accumulation is None else accumulation.pending()
        return None if number == NONE_BAD else session.alert_of_microbatch(number, action=self._action)

    def _collect(self, call: Call | None) -> Outcome | None:
        session = self._session_now()
        if session is None:
            return None
        call, bad, inputs = self.boundary.attempt(
            "look at the batch", lambda: self._calls_of_bad_step(call), otherwise=_NO_CALLS
        )
        before = session.steps_seen
        alert = session.collect(action=self._action, inputs=inputs)
        self._schedule(steps=session.steps_seen - before, seen=session.steps_seen)
        call = bad if alert is not None and alert.microbatch is not None else call
        return self._outcome_of(session, self._look_again(session, alert, call))

    def _calls_of_bad_step(self, call: Call | None) -> _BadCalls:
        """Return the call of a bad step, that of its first bad micro-batch, and what is bad in the arguments of it."""
        if self._is_incident_waiting():
            self._plan.take_drawn()
            call = self._find_call() if call is None and self._find_call is not None else call
        call = None if call is None else self._plan.call_of_bad(call)
        bad = None if call is None else self._call_of_bad_microbatch(call)
        return call, bad, tuple(found for found in bad.findings() if found.name not in self._tolerated) if bad else ()

    def _look_again(self, session: Session, alert: Alert | None, call: Call | None) -> Alert | None:
        if alert is None or call is None:
            return alert
        return self.boundary.attempt(
            "look at the bad step again", lambda: self._supplemented(session, alert, call), otherwise=alert
        )

    def _supplemented(self, session: Session, alert: Alert, call: Call) -> Alert:
        """Save the batch of a bad step, run the step again, and add to its alert what that brought."""
        spoilt = frozenset(finding.name for finding in alert.findings if finding.role == "weight")
        # The batch at hand is not that of the step whose update spoilt a variable.
        saved = self._saved(call, alert, samples_of(alert)) if not spoilt else SavedBatch(None)
        found = self.boundary.attempt(
            "run the bad step again", lambda: self._replayed(call, alert, spoilt), otherwise=None
        )
        if saved.path is None and not spoilt and found is not None and found.chains:
            saved = self._saved(call, alert, found.chains[0][0].samples)
        whole = replace(alert, replay=found, batch=saved.path, notes=(*alert.notes, *saved.notes, *call.notes))
        if whole != alert:
            session.supplement(whole)
        return whole

    def step_failed(self, error: tf.errors.OpError, call: Call | None) -> None:
        """Write of a step that an error ended, and add to the error what running the step again shows.

        Args:
            error: of an operation; the end of a data set is no fault.
            call: of the step; ``None`` if it is not known.
        """
        if is_fault(error):
            self.boundary.attempt(
                "write of a step that an error ended", partial(self._tell_of_unfinished, error, call), otherwise=None
            )

    def _tell_of_unfinished(self, error: tf.errors.OpError, call: Call | None) -> None:
        session = self._session_now()
        if session is None or self._has_met_error:
            # Of a program that goes on after errors the first is looked at.
            return
        self._has_met_error = True
        before, calls = session.steps_seen, self._calls
        bad = session.collect(action=self._action)
        alert = session.alert_of_unfinished(
            error_line(error), action=self._action, is_recorded=session.steps_seen - before == calls + 1
        )
        call = call or (self._find_call() if self._find_call is not None else None)
        if alert is None or bad is not None or session.header is None:
            return
        if call is not None and self._plan.replicas is None and isinstance(error, REPEATABLE):
            alert = self._look_behind(error, alert, call)
            session.supplement(alert)
        verdict = verdict_of_alert(session.header, alert, steps_seen=session.steps_seen, run=self._options.run)
        tell_user(error, text_of(alert, verdict), self._options.logdir)

    def _look_behind(self, error: tf.errors.OpError, alert: Alert, call: Call) -> Alert:
        found, plan = None, self._plan
        if self._options.replay:
            evidence = Evidence(frozenset(), plan.variables, plan.described, has_several=plan.has_several, error=error)
            found = self.run_again(
                call, evidence, watch=self, limits=ReplayLimits(), logdir=self._options.logdir, dump=None
            )
        findings = findings_of(found)
        saved = self._saved(call, alert, findings[0].samples if findings else ())
        return replace(alert, findings=findings, replay=found, batch=saved.path, notes=(*alert.notes, *saved.notes))

    def _saved(self, call: Call, alert: Alert, samples: Sequence[int]) -> SavedBatch:
        if not self._options.save_batch or self._batches_left == 0:
            return SavedBatch(None)
        is_before_window = alert.error is not None or not len(alert.window)
        step = alert.step if is_before_window else int(alert.window.last_step[-1])
        saved = self.boundary.attempt(
            "save the batch of the bad step",
            lambda: save_batch(self._options.logdir, call, step=step, samples=samples),
            otherwise=SavedBatch(None),
        )
        self._batches_left -= saved.path is not None
        return saved

    def _replayed(self, call: Call, alert: Alert, spoilt: frozenset[str]) -> Replay | None:
        was_so_before = bool(spoilt) and alert.step == alert.first_step
        if not self._options.replay or was_so_before or not self._may_replay(alert):
            return None
        roles = frozenset(finding.role for finding in alert.findings)
        sizes = gradient_sizes_before(alert, self._plan.described) if spoilt else ()
        plan = self._plan
        evidence = Evidence(
            roles,
            plan.variables,
            plan.described,
            spoilt,
            sizes,
            has_several=plan.has_several,
            # Micro-batches may be other calls, which drew their own.
            drawn=plan.drawn if alert.microbatch is None else None,
            is_first_update=bool(spoilt) and step_before(alert) == alert.first_step,
            owners=plan.owners,
            is_microbatch=alert.microbatch is not None,
        )
        dump = os.path.join("debugger", f"step-{alert.step}") if self._options.keep_dump else None
        return self.run_again(call, evidence, watch=self, limits=ReplayLimits(), logdir=self._options.logdir, dump=dump)

    def _may_replay(self, alert: Alert) -> bool:
        """Return whether the state that a bad step began with is still there; one that is skipped is told once."""
        if self._options.policy == "skip" and not self._has_replayed:
            self._has_replayed = True
            return self._plan.ring is not None and self._plan.ring.on_host
        return self._options.policy == "raise" or alert.action == "raised"

    def _outcome_of(self, session: Session, alert: Alert | None) -> Outcome | None:
        """Return what the policy acts upon; ``None`` where there is nothing to act upon."""
        has_skipped_enough = session.skips_in_a_row >= self._options.max_skips
        # Closing the watch after the error must not report the same skips again.
        if session.header is None or (
            alert is None and (not has_skipped_enough or session.steps_seen == self._gave_up_at)
        ):
            return None
        is_new = alert is not None
        alert = session.last_alert if alert is None else alert
        if alert is None:
            return None
        # Where an update left the weights bad, there is nothing good left to go on with.
        is_lost = self.boundary.attempt(
            "see whether weights are lost", lambda: lost_weights(alert) is not None, otherwise=False
        )
        gave_up = has_skipped_enough or is_lost
        if has_skipped_enough:
            self._gave_up_at = session.steps_seen
        is_error = self._options.policy == "raise" or (self._options.policy == "skip" and gave_up)
        outcome = self.boundary.attempt(
            "say what was first", lambda: self._described(session, alert), otherwise=None
        ) or Outcome.without_verdict(
            run=self._run,
            step=alert.step,
            steps_seen=session.steps_seen,
            reason=self.boundary.reason,
            alert=alert,
        )
        return outcome._replace(is_error=is_error, is_reported=is_new and outcome.is_reported)

    def _described(self, session: Session, alert: Alert) -> Outcome | None:
        if session.header is None:
            return None
        verdict = verdict_of_alert(session.header, alert, steps_seen=session.steps_seen, run=self._run)
        message = message_of(verdict, alert, self._options.logdir, skips=session.skips_in_a_row)
        return Outcome(verdict, alert, message, is_error=True, is_reported=True)

    def _act(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            outcome.act(self._options.on_nonfinite)

    def _has_news(self, incident: int | None) -> bool:
        return incident is not None and (self._session is None or not self._session.is_handled(incident))

    def _schedule(self, *, steps: int, seen: int) -> None:
        # One call may run many steps, and the ring must be read before it comes round.
        steps_a_call, window = max(1.0, steps / max(1, self._calls)), self._options.window
        # Read at multiples of the window, no span of up to as many steps is left unfinished by a read.
        due = window - seen % window if steps_a_call == 1 else window
        self._calls, self._calls_due = 0, max(1, int(due / steps_a_call))
        self._flush_at_s = time.monotonic() + self._options.flush_interval_s

    def _note_harmless(self, call: Call | None) -> None:
        # An argument that holds NaN in a step that stays finite (a masked label, say) is no origin of anything.
        if call is not None and self._session is not None and self._session.is_last_finite:
            self._tolerated |= {found.name for one in self._plan.calls_of(call) for found in one.findings()}

    def _session_now(self) -> Session | None:
        decoder, ring = self._plan.decoder, self._plan.ring
        if self._session is None and decoder is not None and ring is not None:
            worker = self._plan.replicas.worker if self._plan.replicas and self._plan.has_peers else None
            if worker:
                self._writer.go_below(f"worker-{worker}")
            self._session = Session(
                decoder,
                policy=self._options.policy,
                writer=self._writer,
                ring=ring,
                counted=self._plan.counted,
                accumulation=self.accumulation or self._plan.accumulation,
                microbatches=self._plan.microbatches_a_step,
                worker=worker,
                boundary=self.boundary,
            )
        return self._session
