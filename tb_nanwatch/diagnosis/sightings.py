"""Where the first non-finite value of a step stood, as far as the records tell.

Everything that was seen to be non-finite becomes a :class:`Sighting`. The first in order of steps, then in
the order data flows through a step, is the origin; where several stand in one place and nothing orders them,
the fact is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from tb_nanwatch.diagnosis.run_log import SessionLog
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

ABOUT_VARIABLES: Final = frozenset({"weights", "backward", "clip", "update", "state"})
"""The phases whose origin is a variable; of ``input`` and ``forward`` it is a tensor."""
_ABOUT_TENSORS: Final = frozenset({"input", "forward"})
_PHASE_OF_ROLE: Final[dict[Role, Phase]] = {
    "input": "input",
    "weight": "weights",
    "tensor": "forward",
    "loss": "loss",
    "gradient": "backward",
    "clipped": "clip",
    "state": "state",
    "scalar": "update",
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
    is_scalar: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """What sightings are ordered by."""
        return self.step, PHASES.index(self.phase)


def recorded_origin(header: Header, alert: Alert) -> Origin:
    """Return where the findings of an alert say that its non-finite values began; see :func:`origin_of_alert`."""
    origin = _origin(header, [_sighting(header, alert, finding) for finding in alert.findings])
    worker = header.worker if alert.worker is None else alert.worker
    return replace(origin, replica=alert.replica, microbatch=alert.microbatch, worker=worker)


def origin_in_columns(session: SessionLog) -> Origin | None:
    """Return where the spans of a session say that it began; ``None`` where they were finite."""
    seen = list(_seen_in_columns(session))
    return _origin(session.header, seen) if seen else None


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
    is_tensor = one is not None and one.is_scalar
    layer_of = {variable.name: variable.layer for variable in header.variables}
    return Origin(
        step=chosen[0].step,
        phase=phase,
        layer=_agreed([_layer(layer_of, one) for one in chosen]) if phase in ABOUT_VARIABLES else None,
        variable=one.name if one and not is_tensor and phase in ABOUT_VARIABLES else None,
        tensor=one.name if one and (is_tensor or phase in _ABOUT_TENSORS) else None,
        kind=_agreed([sighting.kind for sighting in chosen]),
        counts=one.counts if one else None,
        samples=one.samples if one else (),
        op=None,
        source=None,
        replica=None,
        worker=header.worker,
        microbatch=None,
        evidence="records",
        batch=None,
    )


def _layer(layer_of: Mapping[str, str | None], sighting: Sighting) -> str | None:
    # The header does not list what is kept beside the trained variables.
    owner, slash, _ = sighting.name.rpartition("/")
    return (owner if slash else None) if sighting.phase == "state" else layer_of.get(sighting.name)


def _agreed(answers: Sequence[_T | None]) -> _T | None:
    return answers[0] if len(set(answers)) == 1 else None


def _sighting(header: Header, alert: Alert, finding: Finding) -> Sighting:
    step, phase = place_of_role(finding.role, alert.step, first_step=alert.first_step, before=step_before(alert))
    kind = finding.counts.kind if finding.counts else _kind_in_window(header, alert, finding)
    is_scalar = finding.role == "scalar"
    return Sighting(step, phase, finding.name, kind, finding.counts, finding.samples, is_scalar)


def step_before(alert: Alert) -> int:
    """Return the step that was watched before that of an alert."""
    steps = alert.window.last_step
    return int(steps[-2]) if len(steps) > 1 and steps[-1] == alert.step else alert.step - 1


def place_of_role(role: Role, step: int, *, first_step: int | None, before: int) -> tuple[int, Phase]:
    """Return the step and the phase that made what plays a role in a step non-finite."""
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
    firsts, kinds = series.column(stat, "first_nonfinite").astype(np.int64, copy=False), series.column(stat, "kinds")
    for column in np.flatnonzero((firsts >= 0).any(axis=0)):
        row = int((firsts[:, column] >= 0).argmax())
        seen = int(firsts[row, column])
        before = _step_before(series, row, seen)
        step, phase = place_of_role(role, seen, first_step=session.first_step, before=before)
        yield Sighting(step, phase, names[column], _KIND_OF_BITS.get(int(kinds[row, column])))


def _step_before(series: Series, row: int, step: int) -> int:
    if row and step == series.first_step[row]:
        return int(series.last_step[row - 1])
    return step - 1


def _names(header: Header, role: Role) -> tuple[str, ...]:
    if role in {"loss", "input"}:
        return ("loss",)
    return header.tensors if role == "tensor" else tuple(variable.name for variable in header.variables)
