"""Where the first non-finite value of a step, a session or a run stood.

Which step it was, the records tell. Where that step was run again and the operation was seen, that is the origin;
otherwise what the records tell of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tb_nanwatch.diagnosis.run_log import RunLog, SessionLog
from tb_nanwatch.diagnosis.sightings import origin_in_columns, place_of_role, recorded_origin, step_before
from tb_nanwatch.schema.records import PHASES, Alert, Header, Link, Origin, Replay, Series


@dataclass(frozen=True, eq=False)
class First:
    """The first bad step of a run: where it began, and what tells.

    Attributes:
        origin: where it began.
        recorded: where the records alone put it; the origin itself where the step was not run again.
        session: that met it.
        alert: ``None`` where it was lost and only the columns of the spans tell.
    """

    origin: Origin
    recorded: Origin
    session: SessionLog
    alert: Alert | None

    @property
    def replay(self) -> Replay | None:
        """What running the step again brought; ``None`` where it was not."""
        return self.alert.replay if self.alert else None

    @property
    def chains(self) -> tuple[tuple[Link, ...], ...]:
        """From each origin that the replay found to what went bad; none where it found none."""
        return self.replay.chains if self.replay else ()

    @property
    def is_first_step(self) -> bool:
        """Whether no watched update came before the bad step."""
        return self.origin.step == self.session.first_step

    def at_bad_step(self, stat: str) -> float:
        """Return a statistic of the bad step as a whole; NaN where it was not finite or is not known."""
        step, window = (self.alert.step, self.alert.window) if self.alert else (self.origin.step, self.session.series)
        return _value_at(window, stat, step)


def origin_of_alert(header: Header, alert: Alert) -> Origin:
    """Return where the non-finite values of an alert began.

    A variable that is bad as a step begins was made bad by the update of the step before; only in the first
    watched step was it bad all along.

    Args:
        header: the header of the alert's session.
        alert: its replay is asked, or where that found nothing, its findings; its window tells which step came before.

    Returns:
        An origin with ``evidence="replay"`` or ``"records"``; what they leave open is ``None``.
    """
    if alert.replay is None or not alert.replay.chains:
        return recorded_origin(header, alert)
    return _replayed_origin(header, alert, alert.replay.chains[0][0])


def first_of_run(log: RunLog) -> First | None:
    """Return the first bad step of a run, by session and step; ``None`` where all was finite."""
    found = (_first_of_session(session) for session in log.sessions)
    first = next((first for first in found if first is not None), None)
    if first is None or first.alert is None or first.alert.batch is None:
        return first
    return replace(first, origin=replace(first.origin, batch=path_of_batch(log.run, first.alert.batch)))


def path_of_batch(run: str, batch: str) -> str:
    """Return where the batch of an alert of a run lies, relative to the logdir.

    Example:
        >>> path_of_batch("critic/relu", "batches/step-3.npz"), path_of_batch(".", "batches/step-3.npz")
        ('critic/relu/batches/step-3.npz', 'batches/step-3.npz')
    """
    return batch if run == "." else f"{run}/{batch}"


def _first_of_session(session: SessionLog) -> First | None:
    header = session.header
    # An alert has exact counts, so of one place it is asked before the columns are. Which step was first the records
    # tell: a replay tells more of that step, and not of another.
    candidates: list[tuple[Origin, Alert | None]] = [
        (recorded_origin(header, alert), alert) for alert in session.alerts
    ]
    if (seen := origin_in_columns(session)) is not None:
        candidates.append((seen, None))
    if not candidates:
        return None
    recorded, alert = min(candidates, key=lambda candidate: _place(candidate[0]))
    return First(origin_of_alert(header, alert) if alert else recorded, recorded, session, alert)


def _place(origin: Origin) -> tuple[int, int]:
    return origin.step, PHASES.index(origin.phase)


def _was_meant(header: Header, alert: Alert, link: Link) -> bool:
    """Return whether an Inf of a variable was taken as meant: the step that it made bad does not count it as bad."""
    is_inf = link.counts is not None and link.counts.nonfinite > 0 and link.counts.nan == 0
    is_found = any(finding.role == "weight" and finding.name == link.variable for finding in alert.findings)
    return is_inf and not is_found and any(variable.name == link.variable for variable in header.variables)


def _replayed_origin(header: Header, alert: Alert, link: Link) -> Origin:
    step, phase = alert.step, link.phase
    if phase == "weights" and _was_meant(header, alert, link):
        step = alert.first_step
    elif phase == "weights":
        step, phase = place_of_role("weight", step, first_step=alert.first_step, before=step_before(alert))
    elif phase in ("update", "state") and any(finding.role == "weight" for finding in alert.findings):
        # What was run again is the update of the step before: a variable that it spoilt shows as the next step begins.
        step = step_before(alert)
    layer_of = {variable.name: variable.layer for variable in header.variables}
    return Origin(
        step=step,
        phase=phase,
        # The variable whose gradient an operation is a part of may be another layer's.
        layer=link.layer if link.op is not None or link.layer is not None else layer_of.get(link.variable or ""),
        variable=link.variable,
        tensor=link.tensor,
        kind=link.kind,
        op=link.op,
        source=link.source,
        counts=link.counts,
        samples=link.samples,
        replica=alert.replica,
        worker=header.worker if alert.worker is None else alert.worker,
        microbatch=alert.microbatch,
        evidence="replay",
        batch=None,
        entry=link.entry,
    )


def _value_at(series: Series, stat: str, step: int) -> float:
    if (stat, "max") not in series.columns:
        return math.nan
    # A longer span may hold the value of another of its steps.
    rows = np.flatnonzero((series.first_step == step) & (series.last_step == step))
    return float(series.column(stat, "max")[rows[0], 0]) if len(rows) else math.nan
