"""The origin of the first non-finite value of a step, a session or a run.

The records determine the step. If a replay of that step found the operation, the operation is the origin. Otherwise the
records determine the origin too.
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
    """The first bad step of a run, its origin, and the evidence.

    Attributes:
        origin: the origin, by the replay if there is one.
        recorded: the origin by the records alone.
        session: the session that met it.
        alert: ``None`` if the alert is lost and only the spans show the bad step.
    """

    origin: Origin
    recorded: Origin
    session: SessionLog
    alert: Alert | None

    @property
    def replay(self) -> Replay | None:
        """The replay of the step; ``None`` if it was not replayed."""
        return self.alert.replay if self.alert else None

    @property
    def chains(self) -> tuple[tuple[Link, ...], ...]:
        """One chain per origin that the replay found; empty without a replay."""
        return self.replay.chains if self.replay else ()

    @property
    def is_first_step(self) -> bool:
        """Whether the bad step is the first watched step, so that no update came before it."""
        return self.origin.step == self.session.first_step

    def at_bad_step(self, stat: str) -> float:
        """Return a statistic of the bad step as a whole; NaN if it is non-finite or unknown."""
        step, window = (self.alert.step, self.alert.window) if self.alert else (self.origin.step, self.session.series)
        return _value_at(window, stat, step)


def origin_of_alert(header: Header, alert: Alert) -> Origin:
    """Return the origin of the non-finite values of an alert.

    If a variable is bad when a step begins, the update of the step before made it bad. In the first watched step, it
    was bad before watching began.

    Args:
        header: the header of the alert's session.
        alert: its replay determines the origin, or else its findings. Its window shows which step came before.

    Returns:
        An origin with ``evidence="replay"`` or ``"records"``; unknown parts are ``None``.
    """
    if alert.replay is None or not alert.replay.chains:
        return recorded_origin(header, alert)
    return _replayed_origin(header, alert, alert.replay.chains[0][0])


def first_of_run(log: RunLog) -> First | None:
    """Return the first bad step of a run, by session, then by step; ``None`` if every step is finite."""
    firsts = (_first_of_session(session) for session in log.sessions)
    first = next((first for first in firsts if first is not None), None)
    if first is None or first.alert is None or first.alert.batch is None:
        return first
    return replace(first, origin=replace(first.origin, batch=path_of_batch(log.run, first.alert.batch)))


def path_of_batch(run: str, batch: str) -> str:
    """Return the path of an alert's batch, relative to the logdir.

    Example:
        >>> path_of_batch("critic/relu", "batches/step-3.npz"), path_of_batch(".", "batches/step-3.npz")
        ('critic/relu/batches/step-3.npz', 'batches/step-3.npz')
    """
    return batch if run == "." else f"{run}/{batch}"


def _first_of_session(session: SessionLog) -> First | None:
    header = session.header
    # The records decide which step was first; a replay only adds to its own step. At equal places an alert comes before
    # the columns, because it has exact counts.
    candidates: list[tuple[Origin, Alert | None]] = [
        (recorded_origin(header, alert), alert) for alert in session.alerts
    ]
    if (in_columns := origin_in_columns(session)) is not None:
        candidates.append((in_columns, None))
    if not candidates:
        return None
    recorded, alert = min(candidates, key=lambda candidate: _place(candidate[0]))
    return First(origin_of_alert(header, alert) if alert else recorded, recorded, session, alert)


def _place(origin: Origin) -> tuple[int, int]:
    return origin.step, PHASES.index(origin.phase)


def _is_intended(header: Header, alert: Alert, link: Link) -> bool:
    """Return whether an Inf in a variable is intended: no finding of the bad step names the variable."""
    is_inf = link.counts is not None and link.counts.nonfinite > 0 and link.counts.nan == 0
    is_found = any(finding.role == "weight" and finding.name == link.variable for finding in alert.findings)
    return is_inf and not is_found and any(variable.name == link.variable for variable in header.variables)


def _replayed_origin(header: Header, alert: Alert, link: Link) -> Origin:
    step, phase = alert.step, link.phase
    if phase == "weights" and _is_intended(header, alert, link):
        step = alert.first_step
    elif phase == "weights":
        step, phase = place_of_role("weight", step, first_step=alert.first_step, before=step_before(alert))
    elif phase in ("update", "state") and any(finding.role == "weight" for finding in alert.findings):
        # The replay ran the update of the step before. A variable that it made non-finite shows in the next step.
        step = step_before(alert)
    return Origin(
        step=step,
        phase=phase,
        # An operation may belong to another layer than the variable whose gradient it helps to compute.
        layer=link.layer if link.op is not None or link.layer is not None else header.layers.get(link.variable or ""),
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
    # Use only a span of length 1: a longer span may hold the value of another step.
    rows = np.flatnonzero((series.first_step == step) & (series.last_step == step))
    return float(series.column(stat, "max")[rows[0], 0]) if len(rows) else math.nan
