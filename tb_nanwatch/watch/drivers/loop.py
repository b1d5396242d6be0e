"""The loop, the same for every driver: when the host reads the device, and what follows a bad step."""

from __future__ import annotations

import atexit
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import tensorflow as tf

from tb_nanwatch.errors import NonFiniteError
from tb_nanwatch.schema.records import Action, Alert, Finding, Policy
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.drivers.driver import Driver
from tb_nanwatch.watch.drivers.investigation import Investigation, add_to_error, error_line, is_fault
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.drivers.outcome import Outcome, Outcomes
from tb_nanwatch.watch.record.batch import StepCall
from tb_nanwatch.watch.record.incident import verdict_of_alert
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.record.ring import Ring
from tb_nanwatch.watch.record.session import Session
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.row.microbatches import NONE_BAD

_ACTIONS: Final[dict[Policy, Action]] = {"raise": "raised", "skip": "skipped", "record": "recorded"}
_READ: Final = "read the steps, and records nothing more"
_LastCheck = tuple[Alert | None, StepCall | None]
_BadCalls = tuple[StepCall | None, StepCall | None, tuple[Finding, ...]]
_NOT_CHECKED: Final[_LastCheck] = (None, None)
_NO_CALLS: Final[_BadCalls] = (None, None, ())


class Loop:
    """The host's part of a training loop, the same for every driver.

    Attributes:
        options: what the user chose.
        boundary: around all that the host does after a step, except the user's ``on_nonfinite`` and the policy's
            exception.
    """

    def __init__(self, driver: Driver, options: LoopOptions, plan: Plan) -> None:
        """Begin before the first step.

        Args:
            driver: of the steps.
            options: the user's.
            plan: what is measured.
        """
        self.options, self.boundary = options, Boundary()
        self._driver, self._plan, self._writer = driver, plan, Writer(options.logdir)
        self._action: Action = _ACTIONS[options.policy]
        self._investigation = Investigation(options, plan, self.boundary)
        self._outcomes = Outcomes(options, self.boundary)
        self._session: Session | None = None
        self._has_failed = self._has_met_error = self._is_closed = False
        self._calls = 0
        self._calls_due = 1
        self._flush_at_s = 0.0
        self._function = ""
        # If the user does not close the watch, the end of the program does.
        atexit.register(self._close_at_exit)

    def _close_at_exit(self) -> None:
        self.boundary.attempt("see whether it recorded anything", self._warn_if_nothing_was_recorded, otherwise=None)
        self.close(quietly=True)

    def use(self, driver: Driver) -> None:
        """Ask another driver about bad steps from here on."""
        self._driver = driver

    def tolerate(self, arguments: Iterable[str]) -> None:
        """Never report these arguments as an origin: what is wrong with them shows elsewhere."""
        self._investigation.tolerate(arguments)

    def expect_row(self, function: str) -> None:
        """Warn at the end of the watch if it has recorded nothing by then.

        Args:
            function: name of the step that should have left a row.
        """
        self._function = function

    def next_step(self) -> int:
        """Return the number that the next step will have, as far as it is known."""
        session = self._session_now()
        return 0 if session is None else session.next_step()

    def after_step(self, call: StepCall | None) -> None:
        """Check for an incident where that is needed, and read the device when a read is due.

        Args:
            call: of the step; ``None`` if its arguments are unknown.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        self._calls += 1
        if self._plan.ring is None:
            return
        if self._is_closed:
            self._is_closed = False
            atexit.register(self._close_at_exit)
        is_due = self._calls >= self._calls_due or time.monotonic() >= self._flush_at_s
        # Most steps need no more than this.
        if self._plan.polls or is_due:
            self._act(self._outcome(lambda: self._after_step(call, is_due=is_due), is_bad=self._is_incident_waiting))

    def lose_step(self, *, is_bad: Callable[[], bool]) -> None:
        """Take note of a step whose row could not be read.

        Args:
            is_bad: returns whether the step was bad.

        Raises:
            NonFiniteError: by policy ``"raise"``, if it was.
        """
        self._has_failed = True
        self._act(self._outcome_of_failure(is_bad))

    def step_stopped(self, call: StepCall | None) -> None:
        """Raise for a step that the guard stopped with an error of TensorFlow's.

        Args:
            call: of the step; ``None`` if its arguments are unknown.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        self._act(self._outcome(lambda: self._collect(call), is_bad=lambda: True))

    def step_failed(self, error: tf.errors.OpError, find_call: Callable[[], StepCall | None]) -> None:
        """Record a step that an error ended, and add to the error what a replay of the step shows.

        Args:
            error: of an operation. The end of a data set is no fault.
            find_call: returns the call of the step; ``None`` if its arguments are unknown.
        """
        if is_fault(error):
            self.boundary.attempt(
                "write of a step that an error ended", partial(self._record_error, error, find_call), otherwise=None
            )

    def close(self, *, quietly: bool = False) -> None:
        """Read and write what is left, and check the variables after the last update.

        Args:
            quietly: whether to warn instead of raising, because no caller could catch the error or because another
                error is on its way.

        Raises:
            NonFiniteError: by policy ``"raise"``, if the last update left a variable non-finite, or a bad step was not
                reported yet.
        """
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self._close_at_exit)
        if not quietly:
            part = "see whether it recorded anything"
            self.boundary.attempt(part, self._warn_if_nothing_was_recorded, otherwise=None)
        outcome = self._outcome(self._last_check, is_bad=self._is_incident_waiting)
        self.boundary.attempt("write what was left", self._close_log, otherwise=None)
        try:
            self._act(outcome)
        except NonFiniteError as error:
            if not quietly:
                raise
            warnings.warn(str(error), stacklevel=2)

    def _after_step(self, call: StepCall | None, *, is_due: bool) -> Outcome | None:
        ring = self._plan.ring
        # No process may learn of a bad step before the others do.
        if ring is not None and self._polls(ring) and self._has_news(ring.incident()):
            return self._collect(call)
        if not is_due:
            return None
        outcome = self._collect(None)
        if outcome is None:
            self.boundary.attempt("look at the batch", lambda: self._note_harmless(call), otherwise=None)
        return outcome

    def _polls(self, ring: Ring) -> bool:
        return self._plan.polls and (ring.on_host or self._plan.has_peers)

    def _outcome(self, read: Callable[[], Outcome | None], *, is_bad: Callable[[], bool]) -> Outcome | None:
        """Read the device. If that fails now or failed before, find out only whether the step was bad."""
        dealt_with = -1 if self._session is None else self._session.last_handled
        found = None if self._has_failed else self.boundary.attempt(_READ, lambda: (read(),), otherwise=None)
        if found is not None:
            return found[0]
        self._has_failed = True
        # The read may have failed after it dealt with the incident.
        is_dealt_with = self._session is not None and self._session.last_handled != dealt_with
        return self._outcome_of_failure(lambda: is_dealt_with or is_bad())

    def _outcome_of_failure(self, is_bad: Callable[[], bool]) -> Outcome | None:
        if self.options.policy != "raise" or not self.boundary.attempt("ask for a bad step", is_bad, otherwise=True):
            return None
        step = self.boundary.attempt("find the number of the bad step", self._take_incident, otherwise=None)
        seen = 0 if self._session is None else self._session.steps_seen
        return self._outcomes.without_verdict(step=step, steps_seen=seen)

    def _is_incident_waiting(self) -> bool:
        return self._plan.ring is not None and self._has_news(self._plan.ring.incident())

    def _has_news(self, incident: int | None) -> bool:
        return incident is not None and (self._session is None or not self._session.is_handled(incident))

    def _take_incident(self) -> int | None:
        """Clear the incident that waits, so that updates are no longer withheld, and return its step if it is known."""
        ring = self._plan.ring
        number = None if ring is None else ring.incident()
        if ring is not None:
            ring.forget_incident()
        return number if self._plan.counted else None

    def _act(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            outcome.act(self.options.on_nonfinite)

    def _collect(self, call: StepCall | None) -> Outcome | None:
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
        return self._outcomes.of_read(session, self._investigated(session, alert, call))

    def _calls_of_bad_step(self, call: StepCall | None) -> _BadCalls:
        """Return the call of the bad step, that of its first bad micro-batch, and what is non-finite in the latter."""
        if not self._is_incident_waiting():
            return _NO_CALLS
        call = self._driver.call_of_bad_step(call)
        bad = None if call is None else self._driver.call_of_bad_microbatch(call)
        return call, bad, () if bad is None else self._investigation.bad_arguments(bad)

    def _schedule(self, *, steps: int, seen: int) -> None:
        # One call may run many steps, and the host must read the ring before it comes round.
        steps_a_call, window = max(1.0, steps / max(1, self._calls)), self.options.window
        # A read at a multiple of the window leaves no span of up to that many steps unfinished.
        due = window - seen % window if steps_a_call == 1 else window
        self._calls, self._calls_due = 0, max(1, int(due / steps_a_call))
        self._flush_at_s = time.monotonic() + self.options.flush_interval_s

    def _note_harmless(self, call: StepCall | None) -> None:
        # NaN in an argument of a step that stays finite (a masked label, for example) is no origin.
        if call is not None and self._session is not None and self._session.is_last_finite:
            calls = self._driver.calls_of(call)
            self._investigation.tolerate(found.name for made in calls for found in made.findings())

    def _investigated(self, session: Session, alert: Alert | None, call: StepCall | None) -> Alert | None:
        if alert is None or call is None:
            return alert
        return self.boundary.attempt(
            "look at the bad step again", lambda: self._supplemented(session, alert, call), otherwise=alert
        )

    def _supplemented(self, session: Session, alert: Alert, call: StepCall) -> Alert:
        whole = self._investigation.of_bad_step(alert, call, driver=self._driver)
        if whole != alert:
            session.supplement(whole)
        return whole

    def _record_error(self, error: tf.errors.OpError, find_call: Callable[[], StepCall | None]) -> None:
        session = self._session_now()
        if session is None or self._has_met_error:
            # In a program that goes on after errors, only the first is recorded.
            return
        self._has_met_error = True
        before, calls = session.steps_seen, self._calls
        bad = session.collect(action=self._action)
        alert = session.alert_of_unfinished(
            error_line(error), action=self._action, is_recorded=session.steps_seen - before == calls + 1
        )
        call = find_call()
        if alert is None or bad is not None or session.header is None:
            return
        whole = self._investigation.of_unfinished_step(alert, error, call, driver=self._driver)
        if whole is not None:
            alert = whole
            session.supplement(whole)
        verdict = verdict_of_alert(session.header, alert, steps_seen=session.steps_seen, run=self.options.run)
        add_to_error(error, alert, verdict, logdir=self.options.logdir)

    def _last_check(self) -> Outcome | None:
        session = self._session_now()
        if session is None:
            return None
        self.boundary.attempt("keep what the bad step drew", self._make_room, otherwise=None)
        alert = session.collect(action=self._action)
        if alert is None:
            alert, call = self.boundary.attempt(
                "look at the variables once more", lambda: self._after_last_update(session), otherwise=_NOT_CHECKED
            )
            alert = self._investigated(session, alert, call)
        return self._outcomes.of_read(session, alert)

    def _make_room(self) -> None:
        if self._is_incident_waiting():
            self._driver.call_of_bad_step(None)

    def _after_last_update(self, session: Session) -> _LastCheck:
        """Check for a bad micro-batch whose update did not come, and check the variables: no later step will."""
        call, accumulation = self._driver.last_call, self._driver.accumulation
        number = NONE_BAD if accumulation is None else accumulation.pending()
        alert = None if number == NONE_BAD else session.alert_of_microbatch(number, action=self._action)
        if alert is None:
            return session.check_variables(self._driver.last_values(), action=self._action), call
        return alert, None if call is None else self._driver.call_of_bad_microbatch(call)

    def _warn_if_nothing_was_recorded(self) -> None:
        if self._function and self._plan.ring is None:
            warnings.warn(
                f"tb_nanwatch recorded nothing: {self._function} is decorated with Watch.step, but no step called"
                " watch.apply_gradients",
                stacklevel=2,
            )

    def _close_log(self) -> None:
        if self._session is not None:
            self._session.close()
        self._writer.close()

    def _session_now(self) -> Session | None:
        decoder, ring = self._plan.decoder, self._plan.ring
        if self._session is None and decoder is not None and ring is not None:
            worker = self._plan.replicas.worker if self._plan.replicas and self._plan.has_peers else None
            if worker:
                self._writer.go_below(f"worker-{worker}")
            self._session = Session(
                decoder,
                policy=self.options.policy,
                writer=self._writer,
                ring=ring,
                counted=self._plan.counted,
                accumulation=self._driver.accumulation,
                microbatches=self._plan.microbatches_a_step,
                worker=worker,
                boundary=self.boundary,
            )
        return self._session
