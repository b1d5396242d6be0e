"""One session on the host: from the device's ring to the writer, and from an incident to an alert."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tb_nanwatch.diagnosis.notes import lost_weights
from tb_nanwatch.numerics.finiteness import count_nonfinite
from tb_nanwatch.schema.records import STEPS_BELOW, Action, Alert, Finding, Header, IntArray, Policy, Series
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.record.numbering import Numbering
from tb_nanwatch.watch.record.ring import Ring
from tb_nanwatch.watch.record.thinner import Thinner
from tb_nanwatch.watch.record.versions import loaded_versions
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.row.cells import Layout

Rows = npt.NDArray[np.float32]
MOST_ALERTS: Final = 16
"""That one session writes of steps that did not end training: there may be one in every hundred, for ever."""
_MOST_NAMED: Final = 3
_COLLAPSED: Final = (
    "The gradients were not finite from there on, and every update was left out while the loss scale was halved; at"
    " step {step:,} it was 1, so the scale was not the reason."
)
_NOTHING = Series(np.zeros(0, np.int64), np.zeros(0, np.int64), {})


class Accumulated(Protocol):
    """The micro-batches of a step, wherever they are kept."""

    def counts(self) -> IntArray:
        """Return the exact counts of the first bad micro-batch: a row for each gradient, and the loss's."""

    def pending(self) -> int:
        """Return the number of the first bad micro-batch whose update has not come; ``NONE_BAD`` if all are finite."""


class Session:
    """Drains a recorder into a writer; begins anew where the user's step goes back, as when a checkpoint is restored.

    Attributes:
        header: what is constant for it.
        steps_seen: rows drained so far.
        ended_well: whether the last of them was finite.
        skips_in_a_row: how many of the last were bad and left out by the policy.
        last_alert: ``None`` before the first.
        settled: number of the last row whose incident was dealt with; negative if there is none.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        policy: Policy,
        writer: Writer,
        recorder: Ring,
        counted: bool,
        accumulation: Accumulated | None = None,
        microbatches: int = 1,
        worker: int | None = None,
        boundary: Boundary | None = None,
    ) -> None:
        """Begin a session; nothing is written before its first step.

        Args:
            layout: of the rows.
            policy: the user's.
            writer: takes the messages.
            recorder: of the device.
            counted: whether a step is the number of its row; else the ring has the user's steps.
            accumulation: of the micro-batches of a step, if it has any.
            microbatches: how many steps in a row add up to one update.
            worker: which of several processes this is; ``None`` where there is but one.
            boundary: of the watch. Where the log cannot be written, an alert is known all the same.
        """
        self._boundary, self._records = boundary or Boundary(), True
        self._layout, self._policy, self._writer = layout, policy, writer
        self._recorder, self._counted, self._accumulation = recorder, counted, accumulation
        self._microbatches, self._worker = microbatches, worker
        self._steps = np.zeros(recorder.window, np.int64)
        self._numbering = Numbering()
        self.settled = -1
        self._meant: set[str] = set()
        self.steps_seen = 0
        self.ended_well = True
        self.skips_in_a_row = 0
        self.last_alert: Alert | None = None
        self._alerts_left = MOST_ALERTS
        self.header: Header | None = None
        self._first_step = self._last_step = -1
        self._begin()

    def collect(self, *, action: Action, inputs: Sequence[Finding] = ()) -> Alert | None:
        """Write the steps that came since the last time and, if an incident waits, its alert.

        Where more steps came than the ring holds, the oldest are lost: there is a gap in the log, and an alert of one
        that is lost has no window.

        Args:
            action: what the policy makes of an incident.
            inputs: what was found in the batch of the bad step.

        Returns:
            The alert that was written; ``None`` if no incident waited.
        """
        written, incident = self._recorder.rows_written(), self._fresh_incident()
        first, began_well = max(self.steps_seen, written - self._recorder.window), self.ended_well
        self.steps_seen = written
        if first < written:
            rows, raw = self._recorder.rows(first, written)
            bad = np.asarray(~np.isfinite(rows).all(axis=1))
            self.ended_well = not bad[-1]
            numbers = np.arange(first, written)
            self._count_skips(bad if action == "skipped" else np.zeros_like(bad))
            # An incident that waits for the host withholds every update after its own.
            later = numbers > incident[0] if incident and action == "raised" else np.zeros_like(bad)
            held = np.zeros_like(bad) if action == "recorded" else bad | later
            steps, counts = numbers if self._counted else self._numbering.of(raw, held), _counts_at(first, incident)
            self._steps[numbers % self._recorder.window] = steps
            for segment in _segments(steps):
                self._take(rows[segment], steps[segment], _shifted(counts, segment))
            self._write(lambda: self._writer.keep(self._thinner.unfinished))
            self._note_meant(rows)
        if incident is None or not self._is_onset(incident[0], action=action, began_well=began_well):
            return None
        return self._tell(*incident, action=action, inputs=inputs)

    def next_step(self) -> int:
        """Return the number that the next step will have, as far as that is known."""
        return self._recorder.rows_written() if self._counted else self._last_step + 1

    def supplement(self, alert: Alert) -> None:
        """Write an alert a second time, with what came to be known of its step after the first."""
        self.last_alert = alert
        nothing = np.zeros(0, np.int64)
        self._write(lambda: self._writer.write_alert(replace(alert, window=Series(nothing, nothing, {}))))

    def is_known(self, number: int) -> bool:
        """Return whether the incident of this row was dealt with and only waits to be cleared."""
        return number <= self.settled

    def check_variables(self, values: Sequence[Any], *, action: Action) -> Alert | None:
        """Look at the variables after the last update, which no step began with any more.

        Args:
            values: the watched variables, in column order.
            action: what the policy makes of it.

        Returns:
            The alert that was written, of the step that would have come next; ``None`` where all are finite, or where
            the last step was bad already.
        """
        if self.header is None or not self.ended_well:
            return None
        names = [variable.name for variable in self.header.variables]
        counts = [count_nonfinite(value.numpy()) for value in values]
        findings = [
            Finding("weight", name, count) for name, count in zip(names, counts, strict=True) if count.nonfinite
        ]
        if not findings:
            return None
        self.ended_well = False
        window = self._window(self.steps_seen - 1, None)
        return self._alert(window, action, tuple(findings), step=self._last_step + 1)

    def tell_of_microbatch(self, number: int, *, action: Action) -> Alert | None:
        """Write the alert of a bad micro-batch whose update did not come.

        Args:
            number: of the micro-batch.
            action: what the policy makes of it.

        Returns:
            The alert, of the step that would have come next; ``None`` where no step was written yet.
        """
        if self.header is None or self._accumulation is None:
            return None
        findings = self._layout.findings_of_microbatch(self._accumulation.counts())
        window = self._window(self.steps_seen - 1, None)
        return self._alert(window, action, findings, step=self._last_step + 1, microbatch=number)

    def tell_of_unfinished(self, error: str, *, action: Action, is_recorded: bool) -> Alert | None:
        """Write the alert of a step that an error ended.

        Args:
            error: in one line.
            action: what the policy makes of bad steps.
            is_recorded: whether the step left its row before it failed.

        Returns:
            The alert.
        """
        if self.header is None:
            nothing = np.zeros(0, np.int64)
            rows = np.zeros([0, len(self._layout.cells)], np.float32)
            self.header = self._new_header(self._layout.decode(rows, nothing, {}))
            header = self.header
            self._write(lambda: self._writer.write_header(header))
            self._first_step = 0
        window = self._window(self.steps_seen - 1, None) if self.steps_seen else _NOTHING
        step = self._last_step + (not is_recorded)
        return self._alert(window, action, (), step=step, error=error)

    def close(self) -> None:
        """Write what is left."""
        self._write(self._write_rest)
        self._write(self._writer.flush)

    def _begin(self) -> None:
        self.header = None
        self._first_step = self._last_step = -1
        self._thinner = Thinner()

    def _take(self, rows: Rows, steps: IntArray, counts: dict[int, IntArray]) -> None:
        if self.header is not None and steps[0] <= self._last_step:
            self._write(self._write_rest)
            self._begin()
        series = self._layout.decode(rows, steps, counts)
        if self.header is None:
            self.header = self._new_header(series)
            header = self.header
            self._write(lambda: self._writer.write_header(header))
            self._first_step = int(steps[0])
        self._last_step = int(steps[-1])
        self._write(lambda: self._write_spans(self._thinner.add(series)))

    def _note_meant(self, rows: Rows) -> None:
        names = [name for name in self._layout.meant_infinities(rows) if name not in self._meant]
        if not names:
            return
        self._meant.update(names)
        listed = ", ".join(map(repr, names[:_MOST_NAMED]))
        more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
        results = "the loss and the gradients" if self._layout.loss else "the gradients"
        overflows = ", but for overflows of the loss scale" if self._layout.scale else ""
        warnings.warn(
            f"tb_nanwatch takes the Inf in the output of {listed}{more} as meant: {results} of those steps are finite"
            f"{overflows}; the norms are those of the finite elements",
            stacklevel=2,
        )

    def _fresh_incident(self) -> tuple[int, IntArray] | None:
        number = self._recorder.incident()
        if number is None:
            return None
        if self.is_known(number):
            self._recorder.forget_incident()
            return None
        return number, self._recorder.incident_counts()

    def _is_onset(self, number: int, *, action: Action, began_well: bool) -> bool:
        """Settle an incident, and return whether to tell it: where bad follows bad in a recorded run, the first is."""
        self.settled = number
        if action != "recorded":
            self._recorder.forget_incident()
        if action == "raised":
            return True
        return not self._is_bad(number - 1) if self._is_in_ring(number - 1) else began_well

    def _is_bad(self, number: int) -> bool:
        return number >= 0 and not bool(np.isfinite(self._recorder.rows(number, number + 1)[0]).all())

    def _tell(self, number: int, table: IntArray, *, action: Action, inputs: Sequence[Finding]) -> Alert | None:
        findings, whose = (*inputs, *self._layout.findings(table)), self._layout.whose(table)
        if self._is_in_ring(number):
            window = self._window(number, table)
            # What was bad before the first micro-batch is no micro-batch's.
            microbatch = None if _is_spoilt(findings) else self._bad_microbatch(number)
            if microbatch is not None:
                findings = (*inputs, *self._findings_of_microbatch(findings, number))
                return self._alert(window, action, findings, microbatch=microbatch, whose=whose)
            since = _overflows_before(window) if _is_of_gradients(findings) else None
            if since is None:
                return self._alert(window, action, findings, whose=whose)
            notes = (_COLLAPSED.format(step=int(window.last_step[-1])),)
            return self._alert(window, action, findings, step=since, notes=notes, whose=whose)
        step = number if self._counted else self._recorder.incident_step()
        # The user's step may be a number that no log can hold.
        step = step if 0 <= step < STEPS_BELOW else self._last_step
        first = max(0, min(self._first_step, step - number))
        return self._alert(_NOTHING, action, findings, step=step, first_step=first, whose=whose)

    def _bad_microbatch(self, number: int) -> int | None:
        places = self._layout.places_of("bad microbatch")
        if not places:
            return number % self._microbatches if self._microbatches > 1 else None
        row = self._recorder.rows(number, number + 1)[0][0]
        return int(row[places[0]]) if row[places[0]] >= 0 else None

    def _findings_of_microbatch(self, of_step: tuple[Finding, ...], number: int) -> tuple[Finding, ...]:
        """Return the findings of a step with those of its first bad micro-batch in place of the total's.

        There are counts of one step's micro-batches, the last that had a bad one. If that is a later step, what was
        found in the total stands, unless the total was finite.
        """
        if self._accumulation is None or (of_step and self._has_bad_microbatch_since(number)):
            return of_step
        others = [finding for finding in of_step if finding.role not in ("gradient", "clipped", "loss", "input")]
        return (*others, *self._layout.findings_of_microbatch(self._accumulation.counts()))

    def _has_bad_microbatch_since(self, number: int) -> bool:
        rows, _ = self._recorder.rows(number + 1, self.steps_seen)
        return bool((rows[:, self._layout.places_of("bad microbatch")] >= 0).any())

    def _count_skips(self, bad: npt.NDArray[np.bool_]) -> None:
        good = np.flatnonzero(~bad)
        self.skips_in_a_row = len(bad) - 1 - int(good[-1]) if len(good) else self.skips_in_a_row + len(bad)

    def _is_in_ring(self, number: int) -> bool:
        return number >= self.steps_seen - self._recorder.window

    def _alert(
        self,
        window: Series,
        action: Action,
        findings: tuple[Finding, ...],
        *,
        step: int | None = None,
        first_step: int | None = None,
        notes: tuple[str, ...] = (),
        microbatch: int | None = None,
        whose: tuple[int | None, int | None] = (None, None),
        error: str | None = None,
    ) -> Alert | None:
        if self.header is None:
            return None
        alert = Alert(
            step=int(window.last_step[-1]) if step is None else step,
            session=self.header.session,
            first_step=self._first_step if first_step is None else first_step,
            action=action,
            findings=findings,
            window=window,
            notes=notes,
            microbatch=microbatch,
            replica=whose[0],
            worker=whose[1],
            error=error,
        )
        if action == "skipped" and lost_weights(alert) is not None:
            # Nothing good is left to go on with.
            alert = replace(alert, action="raised")
        self.last_alert = alert
        self._alerts_left -= alert.action != "raised"
        if self._alerts_left >= 0:
            self._write(self._write_rest)
            self._write(lambda: self._writer.write_alert(alert))
        return alert

    def _window(self, number: int, table: IntArray | None) -> Series:
        first = max(0, self.steps_seen - self._recorder.window)
        rows, _ = self._recorder.rows(first, number + 1)
        steps = self._steps[np.arange(first, number + 1) % self._recorder.window]
        kept = _segments(steps)[-1]
        counts = _counts_at(first, None if table is None else (number, table))
        return self._layout.decode(rows[kept], steps[kept], _shifted(counts, kept))

    def _write(self, action: Callable[[], None]) -> None:
        """Write to the log, until that fails once."""

        def written() -> bool:
            action()
            return True

        if self._records:
            part = "write the log, and records nothing more"
            self._records = self._boundary.attempt(part, written, otherwise=False)

    def _write_rest(self) -> None:
        self._write_spans(self._thinner.rest())

    def _write_spans(self, spans: Iterable[tuple[int, Series]]) -> None:
        for generation, series in spans:
            self._writer.write_spans(series, generation=generation)

    def _new_header(self, series: Series) -> Header:
        return Header(
            session=self._boundary.attempt("count the sessions", self._writer.next_session, otherwise=0),
            variables=self._layout.variables,
            tensors=self._layout.tensors,
            stats=tuple(dict.fromkeys(key.stat for key in series.columns)),
            policy=self._policy,
            clip=self._layout.clip,
            versions=loaded_versions(),
            worker=self._worker,
        )


def _is_spoilt(findings: Sequence[Finding]) -> bool:
    return any(finding.role == "weight" for finding in findings)


def _is_of_gradients(findings: Sequence[Finding]) -> bool:
    return all(finding.role in ("gradient", "clipped") for finding in findings)


def _overflows_before(window: Series) -> int | None:
    """Return since when every step before the last was skipped for an overflow; ``None`` where the one before was not.

    Such a step leaves the weights as they are, so what does not go away with the scale was there from the first on.
    """
    if ("loss_scale", "max") not in window.columns or ("skipped", "max") not in window.columns:
        return None
    skipped = window.column("skipped", "max")[:-1, 0].astype(bool)
    good = np.flatnonzero(~skipped)
    since = int(good[-1]) + 1 if len(good) else 0
    return int(window.first_step[since]) if since < len(skipped) else None


def _segments(steps: IntArray) -> list[slice]:
    """Cut where steps go back."""
    cuts = [0, *(np.flatnonzero(np.diff(steps) <= 0) + 1).tolist(), len(steps)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def _counts_at(first: int, incident: tuple[int, IntArray] | None) -> dict[int, IntArray]:
    return {} if incident is None else {incident[0] - first: incident[1]}


def _shifted(counts: dict[int, IntArray], segment: slice) -> dict[int, IntArray]:
    return {place - segment.start: table for place, table in counts.items() if segment.start <= place < segment.stop}
