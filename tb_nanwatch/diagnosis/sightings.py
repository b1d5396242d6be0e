"""The origin of the first non-finite value, as far as the records show it.

Every non-finite value in the records becomes a :class:`Sighting`. The origin is the first sighting by step, then by
phase in the order of data flow. If several sightings share a place and have no known order, the origin leaves out what
differs between them.
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
from tb_nanwatch.schema.stats import STATS

ABOUT_VARIABLES: Final = frozenset({"weights", "backward", "clip", "update", "state"})
"""The phases whose origin is a variable. In ``input`` and ``forward`` it is a tensor."""
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
_STAT_OF_ROLE: Final[dict[Role, str]] = {stat.role: stat.key for stat in STATS if stat.role is not None}
_T = TypeVar("_T")
_KIND_OF_BITS: Final[dict[int, Kind]] = {NAN: "nan", POS_INF: "pos_inf", NEG_INF: "neg_inf"}


@dataclass(frozen=True)
class Sighting:
    """One non-finite value in the records of a session."""

    step: int
    phase: Phase
    name: str
    kind: Kind | None
    counts: Counts | None = None
    samples: tuple[int, ...] = ()
    is_scalar: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """The sort key of sightings."""
        return self.step, PHASES.index(self.phase)


def recorded_origin(header: Header, alert: Alert) -> Origin:
    """Return the origin of an alert by its findings alone; see :func:`origin_of_alert`."""
    origin = _origin(header, [_sighting(header, alert, finding) for finding in alert.findings])
    worker = header.worker if alert.worker is None else alert.worker
    return replace(origin, replica=alert.replica, microbatch=alert.microbatch, worker=worker)


def origin_in_columns(session: SessionLog) -> Origin | None:
    """Return the origin of a session by its spans alone; ``None`` if they are finite."""
    sightings = list(_sightings_in_columns(session))
    return _origin(session.header, sightings) if sightings else None


def _origin(header: Header, sightings: Sequence[Sighting]) -> Origin:
    first = min(sighting.place for sighting in sightings)
    return _origin_of(header, _earliest(header, [sighting for sighting in sightings if sighting.place == first]))


def _earliest(header: Header, at_one_place: list[Sighting]) -> list[Sighting]:
    """Return the first of the sightings at one place; all that may be first if their order is unknown."""
    phase = at_one_place[0].phase
    if phase not in ABOUT_VARIABLES:
        return at_one_place[:1]
    backward_orders = {variable.name: variable.backward_order for variable in header.variables}
    orders = [backward_orders.get(sighting.name) for sighting in at_one_place]
    known = [order for order in orders if order is not None]
    if phase != "backward" or len(known) < len(orders):
        return at_one_place
    # The backward pass visits one layer after another. Within a layer the order of gradients is unknown.
    first = at_one_place[orders.index(min(known))]
    layers = header.layers
    layer = layers.get(first.name)
    return [
        sighting
        for sighting in at_one_place
        if sighting is first or (layer is not None and layers.get(sighting.name) == layer)
    ]


def _origin_of(header: Header, sightings: list[Sighting]) -> Origin:
    phase, single = sightings[0].phase, sightings[0] if len(sightings) == 1 else None
    is_tensor = single is not None and single.is_scalar
    layers = header.layers
    return Origin(
        step=sightings[0].step,
        phase=phase,
        layer=_if_equal([_layer(layers, sighting) for sighting in sightings]) if phase in ABOUT_VARIABLES else None,
        variable=single.name if single and not is_tensor and phase in ABOUT_VARIABLES else None,
        tensor=single.name if single and (is_tensor or phase in _ABOUT_TENSORS) else None,
        kind=_if_equal([sighting.kind for sighting in sightings]),
        counts=single.counts if single else None,
        samples=single.samples if single else (),
        op=None,
        source=None,
        replica=None,
        worker=header.worker,
        microbatch=None,
        evidence="records",
        batch=None,
    )


def _layer(layers: Mapping[str, str | None], sighting: Sighting) -> str | None:
    # The header lists only trained variables. The name of other state contains its layer.
    owner, slash, _ = sighting.name.rpartition("/")
    return (owner if slash else None) if sighting.phase == "state" else layers.get(sighting.name)


def _if_equal(values: Sequence[_T | None]) -> _T | None:
    return values[0] if len(set(values)) == 1 else None


def _sighting(header: Header, alert: Alert, finding: Finding) -> Sighting:
    step, phase = place_of_role(finding.role, alert.step, first_step=alert.first_step, before=step_before(alert))
    kind = finding.counts.kind if finding.counts else _kind_in_window(header, alert, finding)
    is_scalar = finding.role == "scalar"
    return Sighting(step, phase, finding.name, kind, finding.counts, finding.samples, is_scalar)


def step_before(alert: Alert) -> int:
    """Return the watched step before the step of an alert."""
    steps = alert.window.last_step
    return int(steps[-2]) if len(steps) > 1 and steps[-1] == alert.step else alert.step - 1


def place_of_role(role: Role, step: int, *, first_step: int | None, before: int) -> tuple[int, Phase]:
    """Return the step and the phase that made the tensor with this role non-finite.

    Args:
        role: role of a non-finite tensor.
        step: the step in which it was found.
        first_step: the first watched step of the session, if known.
        before: the watched step before ``step``; its update made a bad weight.
    """
    if role == "weight" and step != first_step:
        return before, "update"
    return step, _PHASE_OF_ROLE[role]


def _kind_in_window(header: Header, alert: Alert, finding: Finding) -> Kind | None:
    names, stat = _names(header, finding.role), _STAT_OF_ROLE.get(finding.role, "")
    key = ColumnKey(stat, "kinds")
    if finding.name not in names or key not in alert.window.columns or not len(alert.window):
        return None
    return _KIND_OF_BITS.get(int(alert.window.columns[key][-1, names.index(finding.name)]))


def _sightings_in_columns(session: SessionLog) -> Iterator[Sighting]:
    for role, stat in _STAT_OF_ROLE.items():
        if (stat, "first_nonfinite") in session.series.columns:
            yield from _sightings_of(session, role, stat)


def _sightings_of(session: SessionLog, role: Role, stat: str) -> Iterator[Sighting]:
    series, names = session.series, _names(session.header, role)
    firsts, kinds = series.column(stat, "first_nonfinite").astype(np.int64, copy=False), series.column(stat, "kinds")
    for column in np.flatnonzero((firsts >= 0).any(axis=0)):
        row = int((firsts[:, column] >= 0).argmax())
        found_in = int(firsts[row, column])
        before = _step_before(series, row, found_in)
        step, phase = place_of_role(role, found_in, first_step=session.first_step, before=before)
        yield Sighting(step, phase, names[column], _KIND_OF_BITS.get(int(kinds[row, column])))


def _step_before(series: Series, row: int, step: int) -> int:
    if row and step == series.first_step[row]:
        return int(series.last_step[row - 1])
    return step - 1


def _names(header: Header, role: Role) -> tuple[str, ...]:
    if role in {"loss", "input"}:
        return ("loss",)
    return header.tensors if role == "tensor" else tuple(variable.name for variable in header.variables)
