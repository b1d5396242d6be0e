"""One session on the host: rows from the ring to the log, and a bad step to its alert."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.diagnosis.notes import lost_weights
from tb_nanwatch.numerics.finiteness import count_nonfinite
from tb_nanwatch.schema.records import Action, Alert, Finding, Header, Policy, Series
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.record.history import NO_STEPS, Block, History, Incident
from tb_nanwatch.watch.record.log import Log
from tb_nanwatch.watch.record.ring import Ring, Rows
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.row.cells import places_of
from tb_nanwatch.watch.row.decoding import Decoder, findings_of_microbatch
from tb_nanwatch.watch.row.microbatches import MicrobatchStore

_MOST_NAMED: Final = 3
_COLLAPSED: Final = (
    "The gradients were not finite from there on, and every update was left out while the loss scale was halved; at"
    " step {step:,} it was 1, so the scale was not the reason."
)


class Session:
    """Reads a ring into a log. It begins anew if the user's step goes back, as when a checkpoint is restored.

    Attributes:
        is_last_finite: whether the last row that was read is finite.
        skips_in_a_row: how many bad steps the policy skipped since the last finite one.
        last_alert: ``None`` before the first.
        last_handled: number of the last row whose incident was handled; -1 before the first.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        policy: Policy,
        writer: Writer,
        ring: Ring,
        counted: bool,
        accumulation: MicrobatchStore | None = None,
        microbatches: int = 1,
        worker: int | None = None,
        boundary: Boundary | None = None,
    ) -> None:
        """Begin a session; nothing is written before its first step.

        Args:
            decoder: reads the rows.
            policy: the policy that the user chose.
            writer: takes the messages.
            ring: holds the rows.
            counted: whether a step is the number of its row; else the ring holds the user's steps.
            accumulation: of the micro-batches of a step; ``None`` if it has none.
            microbatches: how many steps in a row add up to one update.
            worker: number of this process; ``None`` if only one process trains.
            boundary: of the watch. If the log cannot be written, alerts are still returned.
        """
        self._decoder, self._ring = decoder, ring
        self._history = History(decoder, ring, counted=counted)
        self._accumulation, self._microbatches = accumulation, microbatches
        self._log = Log(decoder.layout, writer=writer, boundary=boundary or Boundary(), policy=policy, worker=worker)
        self._reported_infinities: set[str] = set()
        self.skips_in_a_row = 0
        self.is_last_finite = True
        self.last_alert: Alert | None = None
        self.last_handled = -1

    @property
    def header(self) -> Header | None:
        """The header of the log; ``None`` before the first step."""
        return self._log.header

    @property
    def steps_seen(self) -> int:
        """How many steps were read, with those that were lost."""
        return self._history.rows_read

    def next_step(self) -> int:
        """Return the number of the next step; if the user numbers steps, the number after the last."""
        return self._history.next_step(self._log.last_step)

    def is_handled(self, number: int) -> bool:
        """Return whether the incident of a row was handled, and only waits to be cleared."""
        return number <= self.last_handled

    def collect(self, *, action: Action, inputs: Sequence[Finding] = ()) -> Alert | None:
        """Write the steps since the last call, and the alert of an incident if there is one.

        If more steps ran than the ring holds, the oldest are lost: the log has a gap, and an alert of a lost step has
        no window.

        Args:
            action: what the policy does about a bad step.
            inputs: findings in the batch of the bad step.

        Returns:
            The alert that was written; ``None`` if there was no incident.
        """
        incident, began_finite = self._next_incident(), self.is_last_finite
        block = self._history.read(incident, action=action)
        if block is not None:
            self._add(block, action=action)
        if incident is None or not self._handle(incident.number, action=action, began_finite=began_finite):
            return None
        return self._alert_of(incident, action=action, inputs=inputs)

    def check_variables(self, values: Sequence[Any], *, action: Action) -> Alert | None:
        """Check the variables after the final update; no later step will.

        Args:
            values: the watched variables, in column order.
            action: what the policy does about a bad step.

        Returns:
            The alert that was written, with the number of the step that would come next; ``None`` if all variables are
            finite, or the last step was bad.
        """
        if self.header is None or not self.is_last_finite:
            return None
        names = [variable.name for variable in self.header.variables]
        counts = [count_nonfinite(value.numpy()) for value in values]
        findings = [
            Finding("weight", name, count) for name, count in zip(names, counts, strict=True) if count.nonfinite
        ]
        if not findings:
            return None
        self.is_last_finite = False
        return self._alert(action, tuple(findings), self._history.window(), step=self._log.last_step + 1)

    def alert_of_microbatch(self, number: int, *, action: Action) -> Alert | None:
        """Write and return the alert of a bad micro-batch whose update did not run.

        Args:
            number: of the micro-batch.
            action: what the policy does about a bad step.

        Returns:
            The alert, with the number of the step that would come next; ``None`` before the first step.
        """
        if self.header is None or self._accumulation is None:
            return None
        findings = findings_of_microbatch(self._decoder.layout, self._accumulation.counts())
        return self._alert(action, findings, self._history.window(), step=self._log.last_step + 1, microbatch=number)

    def alert_of_unfinished(self, error: str, *, action: Action, is_recorded: bool) -> Alert | None:
        """Write and return the alert of a step that an error ended.

        Args:
            error: in one line.
            action: what the policy does about a bad step.
            is_recorded: whether the step wrote its row before it failed.
        """
        if self.header is None:
            rows = np.zeros([0, len(self._decoder.cells)], np.float32)
            self._log.begin(self._decoder.decode(rows, np.zeros(0, np.int64), {}))
        window = self._history.window()
        return self._alert(action, (), window, step=self._log.last_step + (not is_recorded), error=error)

    def supplement(self, alert: Alert) -> None:
        """Write an alert a second time, when more is known of its step."""
        self.last_alert = alert
        self._log.supplement(alert)

    def close(self) -> None:
        """Write all that is left."""
        self._log.close()

    def _add(self, block: Block, *, action: Action) -> None:
        self.is_last_finite = not block.is_bad[-1]
        self._count_skips(block.is_bad if action == "skipped" else np.zeros_like(block.is_bad))
        for steps in block.parts:
            self._log.add(steps)
        self._log.save_unfinished()
        self._warn_of_infinities(block.rows)

    def _count_skips(self, bad: npt.NDArray[np.bool_]) -> None:
        good = np.flatnonzero(~bad)
        self.skips_in_a_row = len(bad) - 1 - int(good[-1]) if len(good) else self.skips_in_a_row + len(bad)

    def _warn_of_infinities(self, rows: Rows) -> None:
        names = [name for name in self._decoder.intended_infinities(rows) if name not in self._reported_infinities]
        if not names:
            return
        self._reported_infinities.update(names)
        listed = ", ".join(map(repr, names[:_MOST_NAMED]))
        more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
        results = "the loss and the gradients" if self._decoder.layout.loss else "the gradients"
        overflows = ", but for overflows of the loss scale" if self._decoder.layout.scale else ""
        warnings.warn(
            f"tb_nanwatch takes the Inf in the output of {listed}{more} as intended: {results} of those steps are"
            " finite"
            f"{overflows}; the norms are those of the finite elements",
            stacklevel=2,
        )

    # Alerts

    def _next_incident(self) -> Incident | None:
        number = self._ring.incident()
        if number is None:
            return None
        if self.is_handled(number):
            self._ring.forget_incident()
            return None
        return Incident(number, self._ring.incident_counts())

    def _handle(self, number: int, *, action: Action, began_finite: bool) -> bool:
        """Handle an incident, and return whether it gets an alert.

        If bad steps follow one another in a run that goes on, only the first gets one.
        """
        self.last_handled = number
        if action != "recorded":
            self._ring.forget_incident()
        if action == "raised":
            return True
        if not self._history.has_row(number - 1):
            return began_finite
        return number == 0 or bool(np.isfinite(self._ring.rows(number - 1, number)[0]).all())

    def _alert_of(self, incident: Incident, *, action: Action, inputs: Sequence[Finding]) -> Alert | None:
        number, counts = incident
        of_step, source = self._decoder.findings(counts), self._decoder.origin_device(counts)
        findings = (*inputs, *of_step)
        if not self._history.has_row(number):
            step = self._history.step_of_lost(number, otherwise=self._log.last_step)
            first_step = max(0, min(self._log.first_step, step - number))
            return self._alert(action, findings, NO_STEPS, step=step, first_step=first_step, source=source)
        window = self._history.window(incident)
        step, notes = int(window.last_step[-1]), tuple[str, ...]()
        # A variable that was bad before the first micro-batch is no fault of a micro-batch.
        is_weight = any(finding.role == "weight" for finding in findings)
        microbatch = None if is_weight else self._bad_microbatch(number)
        if microbatch is not None:
            findings = (*inputs, *self._findings_of_microbatch(of_step, number))
        elif all(finding.role in ("gradient", "clipped") for finding in findings):
            since = _first_overflow_before(window)
            notes = () if since is None else (_COLLAPSED.format(step=step),)
            step = step if since is None else since
        return self._alert(action, findings, window, step=step, notes=notes, microbatch=microbatch, source=source)

    def _bad_microbatch(self, number: int) -> int | None:
        places = places_of(self._decoder.cells, "bad microbatch")
        if not places:
            return number % self._microbatches if self._microbatches > 1 else None
        row = self._ring.rows(number, number + 1)[0][0]
        return int(row[places[0]]) if row[places[0]] >= 0 else None

    def _findings_of_microbatch(self, of_step: tuple[Finding, ...], number: int) -> tuple[Finding, ...]:
        """Return the findings of a step, with those of its first bad micro-batch in place of the total's.

        The device counts the micro-batches of one step, the last step that had a bad one. If that is a later step, the
        findings of the total stay, unless the total was finite.
        """
        if self._accumulation is None or (of_step and self._has_bad_microbatch_since(number)):
            return of_step
        others = [finding for finding in of_step if finding.role not in ("gradient", "clipped", "loss")]
        return (*others, *findings_of_microbatch(self._decoder.layout, self._accumulation.counts()))

    def _has_bad_microbatch_since(self, number: int) -> bool:
        rows, _ = self._ring.rows(number + 1, self.steps_seen)
        return bool((rows[:, places_of(self._decoder.cells, "bad microbatch")] >= 0).any())

    def _alert(
        self,
        action: Action,
        findings: tuple[Finding, ...],
        window: Series,
        *,
        step: int,
        first_step: int | None = None,
        notes: tuple[str, ...] = (),
        microbatch: int | None = None,
        source: tuple[int | None, int | None] = (None, None),
        error: str | None = None,
    ) -> Alert | None:
        """Write an alert and return it; ``source`` is the replica and the process that the findings describe."""
        if self.header is None:
            return None
        alert = Alert(
            step=step,
            session=self.header.session,
            first_step=self._log.first_step if first_step is None else first_step,
            action=action,
            findings=findings,
            window=window,
            notes=notes,
            microbatch=microbatch,
            replica=source[0],
            worker=source[1],
            error=error,
        )
        if action == "skipped" and lost_weights(alert) is not None:
            # A skip restores the variables, and here no finite ones are left to restore.
            alert = replace(alert, action="raised")
        self.last_alert = alert
        self._log.write_alert(alert)
        return alert


def _first_overflow_before(window: Series) -> int | None:
    """Return the first of the steps before the last that were all skipped for an overflow; ``None`` if there is none.

    A step that overflows leaves the weights as they are. So a value that a smaller scale does not make finite was
    there from the first of these steps on.
    """
    if ("loss_scale", "max") not in window.columns or ("skipped", "max") not in window.columns:
        return None
    skipped = window.column("skipped", "max")[:-1, 0].astype(bool)
    good = np.flatnonzero(~skipped)
    since = int(good[-1]) + 1 if len(good) else 0
    return int(window.first_step[since]) if since < len(skipped) else None
