"""The host's part of a training loop: when to read the device, and what to do about a bad step."""

from __future__ import annotations

import atexit
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.errors import NonFiniteError
from tb_nanwatch.schema.records import Action, Alert, Header, Policy, Series, Verdict
from tb_nanwatch.watch.batch import Call
from tb_nanwatch.watch.guard import MESSAGE
from tb_nanwatch.watch.plan import Plan
from tb_nanwatch.watch.session import Session
from tb_nanwatch.watch.writer import Writer

_T = TypeVar("_T")


@dataclass(frozen=True)
class LoopOptions:
    """What the user chose.

    Attributes:
        policy: what to do about a bad step.
        window: steps between two reads of the device.
        flush_interval_s: seconds between two reads when steps are slow.
        logdir: the run's directory.
    """

    policy: Policy
    window: int
    flush_interval_s: float
    logdir: str

    @property
    def run(self) -> str:
        """The run's name: the last part of its directory."""
        return os.path.basename(os.path.abspath(self.logdir))


class Loop:
    """Listens to the steps of a training loop."""

    def __init__(self, options: LoopOptions, plan: Plan, writer: Writer) -> None:
        """Begin before the first step.

        Args:
            options: the user's.
            plan: of what is measured.
            writer: takes the messages.
        """
        self._options, self._plan, self._writer = options, plan, writer
        self._action: Action = "raised" if options.policy == "raise" else "recorded"
        self._session: Session | None = None
        self._depth = 0
        self._calls = 0
        self._calls_due = 1
        self._flush_at_s = 0.0
        self._tolerated: set[str] = set()
        # Until it is closed, the program's end is what closes it.
        atexit.register(self._close_at_exit)

    def _close_at_exit(self) -> None:
        self.close(quietly=True)

    @property
    def in_step(self) -> bool:
        """Whether a step is being run or traced that catches what the guard raises."""
        return self._depth > 0

    def run(self, step: Callable[[], _T], call: Call | None) -> _T:
        """See :class:`~tb_nanwatch.watch.step.StepListener`."""
        self._depth += 1
        try:
            result = step()
        except tf.errors.InvalidArgumentError as error:
            if MESSAGE in str(error):
                self._collect(call)
            raise
        finally:
            self._depth -= 1
        self.after_step(call)
        return result

    def step_traced(self, graph: Any) -> None:
        """See :class:`~tb_nanwatch.watch.step.StepListener`."""
        self._plan.finish_trace(graph)

    def after_step(self, call: Call | None) -> None:
        """Ask after an incident where that is needed, and read the device when it is due.

        Args:
            call: the arguments of the step; ``None`` if they are not known.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        self._calls += 1
        recorder = self._plan.recorder
        if recorder is None:
            return
        if self._plan.polls and recorder.on_host and self._has_news(recorder.incident()):
            self._collect(call)
        elif self._calls >= self._calls_due or time.monotonic() >= self._flush_at_s:
            self._collect(None)
            self._note_harmless(call)

    def close(self, *, quietly: bool = False) -> None:
        """Read and write what is left, and look at the variables once more.

        Args:
            quietly: to warn and not to raise, where nobody could catch it or another error is on its way.

        Raises:
            NonFiniteError: by policy ``"raise"``, if the last update left a variable non-finite, or a bad step was not
                asked after.
        """
        atexit.unregister(self._close_at_exit)
        session = self._session_now()
        alert = None
        if session is not None:
            alert = session.collect(action=self._action)
            alert = alert or session.check_variables(self._plan.variables, action=self._action)
            session.close()
        self._writer.close()
        if session is None:
            return
        try:
            self._raise_if_chosen(session, alert)
        except NonFiniteError as error:
            if not quietly:
                raise
            warnings.warn(str(error), stacklevel=2)

    def _collect(self, call: Call | None) -> None:
        session = self._session_now()
        if session is None:
            return
        before = session.steps_seen
        inputs = tuple(found for found in call.findings() if found.name not in self._tolerated) if call else ()
        alert = session.collect(action=self._action, inputs=inputs)
        self._schedule(steps=session.steps_seen - before)
        self._raise_if_chosen(session, alert)

    def _raise_if_chosen(self, session: Session, alert: Alert | None) -> None:
        if alert is None or session.header is None or self._options.policy != "raise":
            return
        verdict = _verdict(session.header, alert, steps_seen=session.steps_seen, run=self._options.run)
        # TensorFlow's own account of the failed assertion tells nothing that the verdict does not.
        raise NonFiniteError(_message(verdict, alert, self._options.logdir), verdict=verdict, alert=alert) from None

    def _has_news(self, incident: int | None) -> bool:
        return incident is not None and (self._session is None or not self._session.is_known(incident))

    def _schedule(self, *, steps: int) -> None:
        # One call may run many steps, and the ring must be read before it comes round.
        steps_a_call = max(1.0, steps / max(1, self._calls))
        self._calls, self._calls_due = 0, max(1, int(self._options.window / steps_a_call))
        self._flush_at_s = time.monotonic() + self._options.flush_interval_s

    def _note_harmless(self, call: Call | None) -> None:
        # An argument that holds NaN in a step that stays finite (a masked label, say) is no origin of anything.
        if call is not None and self._session is not None and self._session.ended_well:
            self._tolerated |= {found.name for found in call.findings()}

    def _session_now(self) -> Session | None:
        layout, recorder = self._plan.layout, self._plan.recorder
        if self._session is None and layout is not None and recorder is not None:
            self._session = Session(
                layout,
                policy=self._options.policy,
                writer=self._writer,
                recorder=recorder,
                counted=self._plan.counted,
            )
        return self._session


def _verdict(header: Header, alert: Alert, *, steps_seen: int, run: str) -> Verdict:
    log = RunLog(run, (SessionLog(header, _since_the_last_bad_step(alert.window), (alert,)),))
    return replace(diagnose(log), steps_seen=steps_seen)


def _since_the_last_bad_step(window: Series) -> Series:
    # A caller that caught an earlier error went on: what was bad then is no part of this verdict.
    columns = [column for key, column in window.columns.items() if key.keeps == "nonfinite"]
    bad = np.any([column.any(axis=1) for column in columns], axis=0)
    before = np.flatnonzero(bad[:-1])
    return window.rows(slice(int(before[-1]) + 1, None)) if len(before) else window


def _message(verdict: Verdict, alert: Alert, logdir: str) -> str:
    withheld = f" The update of step {alert.step} was withheld." if alert.step == alert.window.last_step[-1] else ""
    return f"{verdict.text}{withheld} For more: nanwatch {logdir}"
