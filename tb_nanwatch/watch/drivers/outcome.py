"""What the policy does with a bad step, once the host has read it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tb_nanwatch.diagnosis.notes import lost_weights
from tb_nanwatch.errors import NonFiniteError
from tb_nanwatch.schema.records import Alert, Header, Verdict
from tb_nanwatch.watch.boundary import Boundary, attempt
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.record.incident import message_of, verdict_of_alert
from tb_nanwatch.watch.record.session import Session


class Outcome(NamedTuple):
    """A bad step.

    Attributes:
        verdict: on the run.
        alert: of the bad step; ``None`` where the watch failed before there was one.
        message: what the exception says.
        is_error: whether the policy raises.
        is_reported: whether ``on_nonfinite`` is called with the verdict.
    """

    verdict: Verdict
    alert: Alert | None
    message: str
    is_error: bool
    is_reported: bool

    def act(self, on_nonfinite: Callable[[Verdict], object] | None) -> None:
        """Call the user's function, and raise if the policy does.

        Raises:
            NonFiniteError: if the policy says so.
        """
        call = on_nonfinite if self.is_reported else None
        if not self.is_error:
            if call is not None:
                call(self.verdict)
            return
        if call is not None:
            # An error in the user's function must not hide the bad step.
            attempt(partial(call, self.verdict), failed=_warn_of_callback)
        # TensorFlow's own text about the failed assertion says nothing that the verdict does not.
        raise NonFiniteError(self.message, verdict=self.verdict, alert=self.alert) from None


class Outcomes:
    """Turns the bad steps of one watch into outcomes."""

    def __init__(self, options: LoopOptions, boundary: Boundary) -> None:
        """Begin before the first bad step.

        Args:
            options: the user's.
            boundary: of the watch.
        """
        self._options, self._boundary = options, boundary
        self._run = options.run
        self._gave_up_at = -1

    def of_read(self, session: Session, alert: Alert | None) -> Outcome | None:
        """Return the outcome of a read of the device; ``None`` where the policy has nothing to act on.

        Args:
            session: that read it.
            alert: of the bad step that it found; ``None`` if it found none.
        """
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
        # Training cannot go on from variables that an update made non-finite.
        is_lost = self._boundary.attempt(
            "see whether weights are lost", lambda: lost_weights(alert) is not None, otherwise=False
        )
        gave_up = has_skipped_enough or is_lost
        if has_skipped_enough:
            self._gave_up_at = session.steps_seen
        is_error = self._options.policy == "raise" or (self._options.policy == "skip" and gave_up)
        header = session.header
        outcome = self._boundary.attempt(
            "say what was first", lambda: self._described(session, header, alert), otherwise=None
        ) or self.without_verdict(step=alert.step, steps_seen=session.steps_seen, alert=alert)
        return outcome._replace(is_error=is_error, is_reported=is_new and outcome.is_reported)

    def without_verdict(self, *, step: int | None, steps_seen: int, alert: Alert | None = None) -> Outcome:
        """Return the outcome of a bad step about which the watch failed to find out more.

        Args:
            step: its number; ``None`` if unknown.
            steps_seen: by the host.
            alert: of the step, if there is one.
        """
        which = "A step" if step is None else f"Step {step}"
        text = f"{which} was not finite. Its origin is unknown, because tb_nanwatch failed: {self._boundary.reason}."
        verdict = Verdict(self._run, "nonfinite", text, steps_seen)
        return Outcome(verdict, alert, text, is_error=True, is_reported=False)

    def _described(self, session: Session, header: Header, alert: Alert) -> Outcome:
        verdict = verdict_of_alert(header, alert, steps_seen=session.steps_seen, run=self._run)
        message = message_of(verdict, alert, self._options.logdir, skips=session.skips_in_a_row)
        return Outcome(verdict, alert, message, is_error=True, is_reported=True)


def _warn_of_callback(reason: str) -> None:
    warnings.warn(f"on_nonfinite failed: {reason}", stacklevel=2)
