"""Where the first non-finite value of a step, a session or a run stood, as far as the records tell.

Everything that was seen to be non-finite becomes a :class:`Sighting`. The first in order of steps, then in
the order data flows through a step, is the origin; where several stand in one place and nothing orders them,
the fact is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from tb_nanwatch.diagnosis.run_log import RunLog, SessionLog
from tb_nanwatch.numerics.finiteness import NAN, NEG_INF, POS_INF
from tb_nanwatch.schema.records import (
    PHASES,
    Alert,
    ColumnKey,
    Counts,
    Finding,
    Header,
    Kind,
    Origin,
    Phase,
    Role,
    Series,
)

ABOUT_VARIABLES: Final = frozenset({"weights", "backward", "clip", "update"})
"""The phases whose origin is a variable; of ``input`` and ``forward`` it is a tensor."""
_ABOUT_TENSORS: Final = frozenset({"input", "forward"})
_PHASE_OF_ROLE: Final[dict[Role, Phase]] = {
    "input": "input",
    "weight": "weights",
    "tensor": "forward",
    "loss": "loss",
    "gradient": "backward",
    "clipped": "clip",
}
_STAT_OF_ROLE: Final[dict[Role, str]] = {
    "weight": "weight_norm",
    "tensor": "tensor_norm",
    "loss": "loss",
    "gradient": "grad_norm",
    "clipped": "clipped_norm",
}
_T = TypeVar("_T")
_KIND_OF_BITS: Final[dict[int, Kind]] = {NAN: "nan", POS_INF: "pos_inf", NEG_INF: "neg_inf"}


@dataclass(frozen=True)
class Sighting:
    """One thing that was non-finite, and where in the session that was."""

    step: int
    phase: Phase
    name: str
    kind: Kind | None
    counts: Counts | None = None
    samples: tuple[int, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """What sightings are ordered by."""
        return self.step, PHASES.index(self.phase)


@dataclass(frozen=True, eq=False)
class First:
    """The first bad step of a run: where it began, and the session and the alert that tell.

    The alert is ``None`` where it was lost and only the columns of the spans tell.
    """

    origin: Origin
    session: SessionLog
    alert: Alert | None

    @property
    def place(self) -> tuple[int, int]:
        """What first steps of one session are ordered by."""
        return self.origin.step, PHASES.index(self.origin.phase)


def origin_of_alert(header: Header, alert: Alert) -> Origin:
    """Return where the non-finite values of an alert began.

    A variable that is bad as a step begins was made bad by the update of the step before; only in the first
    watched step was it bad all along.

    Args:
        header: the header of the alert's session.
        alert: its findings are looked at; its window tells which step came before.

    Returns:
        An origin with ``evidence="records"``; what the findings leave open is ``None``.
    """
    return _origin(header, [_sighting(header, alert, finding) for finding in alert.findings])


def first_of_run(log: RunLog) -> First | None:
    """Return the first bad step of a run, by session and step; ``None`` where all was finite."""
    found = (_first_of_session(session) for session in log.sessions)
    return next((first for first in found if first is not None), None)


def _first_of_session(session: SessionLog) -> First | None:
    header = session.header
    # An alert has exact counts, so of one place it is asked before the columns are.
    candidates = [First(origin_of_alert(header, alert), session, alert) for alert in session.alerts]
    if seen := list(_seen_in_columns(session)):
        candidates.append(First(_origin(header, seen), session, None))
    return min(candidates, key=lambda first: first.place, default=None)


def _origin(header: Header, sightings: Sequence[Sighting]) -> Origin:
    first = min(sighting.place for sighting in sightings)
    return _described(header, _foremost(header, [sighting for sighting in sightings if sighting.place == first]))


def _foremost(header: Header, together: list[Sighting]) -> list[Sighting]:
    phase = together[0].phase
    if phase not in ABOUT_VARIABLES:
        return together[:1]
    order_of = {variable.name: variable.backward_order for variable in header.variables}
    orders = [order_of.get(sighting.name) for sighting in together]
    known = [order for order in orders if order is not None]
    if phase != "backward" or len(known) < len(orders):
        return together
    # The backward pass reaches layers one after the other; within a layer nothing says which gradient was first.
    foremost = together[orders.index(min(known))]
    layer_of = {variable.name: variable.layer for variable in header.variables}
    layer = layer_of.get(foremost.name)
    return [one for one in together if one is foremost or (layer is not None and layer_of.get(one.name) == layer)]


def _described(header: Header, chosen: list[Sighting]) -> Origin:
    phase, one = chosen[0].phase, chosen[0] if len(chosen) == 1 else None
    layer_of = {variable.name: variable.layer for variable in header.variables}
    return Origin(
        step=chosen[0].step,
        phase=phase,
        layer=_agreed([layer_of.get(sighting.name) for sighting in chosen]) if phase in ABOUT_VARIABLES else None,
        variable=one.name if one and phase in ABOUT_VARIABLES else None,
        tensor=one.name if one and phase in _ABOUT_TENSORS else None,
        kind=_agreed([sighting.kind for sighting in chosen]),
        counts=one.counts if one else None,
        samples=one.samples if one else (),
        op=None,
        source=None,
        replica=None,
        worker=None,
        microbatch=None,
        evidence="records",
        batch=None,
    )


def _agreed(answers: Sequence[_T | None]) -> _T | None:
    return answers[0] if len(set(answers)) == 1 else None


def _sighting(header: Header, alert: Alert, finding: Finding) -> Sighting:
    steps = alert.window.last_step
    before = int(steps[-2]) if len(steps) > 1 and steps[-1] == alert.step else alert.step - 1
    step, phase = _placed(finding.role, alert.step, first_step=alert.first_step, before=before)
    kind = finding.counts.kind if finding.counts else _kind_in_window(header, alert, finding)
    return Sighting(step, phase, finding.name, kind, finding.counts, finding.samples)


def _placed(role: Role, step: int, *, first_step: int | None, before: int) -> tuple[int, Phase]:
    if role == "weight" and step != first_step:
        return before, "update"
    return step, _PHASE_OF_ROLE[role]


def _kind_in_window(header: Header, alert: Alert, finding: Finding) -> Kind | None:
    names, stat = _names(header, finding.role), _STAT_OF_ROLE.get(finding.role, "")
    key = ColumnKey(stat, "kinds")
    if finding.name not in names or key not in alert.window.columns or not len(alert.window):
        return None
    return _KIND_OF_BITS.get(int(alert.window.columns[key][-1, names.index(finding.name)]))


def _seen_in_columns(session: SessionLog) -> Iterator[Sighting]:
    for role, stat in _STAT_OF_ROLE.items():
        if (stat, "first_nonfinite") in session.series.columns:
            yield from _seen_in_column(session, role, stat)


def _seen_in_column(session: SessionLog, role: Role, stat: str) -> Iterator[Sighting]:
    series, names = session.series, _names(session.header, role)
    firsts, kinds = series.column(stat, "first_nonfinite").astype(np.int64), series.column(stat, "kinds")
    for column in np.flatnonzero((firsts >= 0).any(axis=0)):
        row = int((firsts[:, column] >= 0).argmax())
        seen = int(firsts[row, column])
        before = _step_before(series, row, seen)
        step, phase = _placed(role, seen, first_step=session.first_step, before=before)
        yield Sighting(step, phase, names[column], _KIND_OF_BITS.get(int(kinds[row, column])))


def _step_before(series: Series, row: int, step: int) -> int:
    if row and step == series.first_step[row]:
        return int(series.last_step[row - 1])
    return step - 1


def _names(header: Header, role: Role) -> tuple[str, ...]:
    if role in {"loss", "input"}:
        return ("loss",)
    return header.tensors if role == "tensor" else tuple(variable.name for variable in header.variables)
