"""What a finite run should be looked at for: gradients that explode, variables that clipping has frozen.

A false alarm costs as much trust as a miss, so both signs ask for more than one figure out of line.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tb_nanwatch.diagnosis.operations.ranges import largest
from tb_nanwatch.diagnosis.run_log import SessionLog, layer_columns
from tb_nanwatch.diagnosis.sentences import shortened
from tb_nanwatch.numerics.norms import combined_norm
from tb_nanwatch.schema import records
from tb_nanwatch.schema.records import Header, Series, Variable

EXPLODING_RATIO: Final = 1000.0
"""How far above all that came before it the norm must rise, and stay."""
_QUIET_BELOW: Final = 1.0
_SPANS_BEFORE: Final = 10
_SPANS_STAYING: Final = 3
_LEADING_RATIO: Final = 2.0

_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Explosion:
    """Gradients whose global norm rose out of all proportion and stayed there.

    Attributes:
        first_step: from which step on.
        layer: the one that grew most, where one stands out.
        before: the median of the norm until then.
        peak: its largest value from then on.
        last_step: the last step that was looked at.
        spans: how many spans it has stayed.
    """

    first_step: int
    layer: str | None
    before: float
    peak: float
    last_step: int
    spans: int

    @property
    def warning(self) -> records.Warning:
        """The warning that says so."""
        most = f", most of all in the layer {shortened(self.layer)}" if self.layer else ""
        text = (
            f"The gradients explode from step {self.first_step:,} on: their global norm rose from "
            f"{self.before:.3g}, the median until then, to {self.peak:.3g}{most}."
        )
        return records.Warning(kind="exploding", first_step=self.first_step, layer=self.layer, text=text)


def find_explosion(session: SessionLog, *, is_before_bad: bool = False) -> Explosion | None:
    """Return where the gradients began to explode.

    That is the first span from which on the mean of the global norm stays at least :data:`EXPLODING_RATIO`
    times the median of all spans before. The mean, not the peak: a span of many steps may have a peak
    although the norm did not stay. A norm below 1 is none: a loss that is flat at first, as before the first
    reward, has gradients near 0 that wake up.

    Args:
        session: at least 10 spans must come before the explosion.
        is_before_bad: whether a non-finite step follows. Where none does, at least 3 spans must stay high: a spike
            at the end of a run is no explosion.

    Returns:
        ``None`` where nothing exploded, and where the log has no global norm.
    """
    series = session.series
    if ("global_norm", "mean") not in series.columns:
        return None
    norms = _floats(series, "global_norm", "mean")[:, 0]
    rows = np.flatnonzero(np.isfinite(norms))
    start = _onset(norms[rows], staying=1 if is_before_bad else _SPANS_STAYING)
    if start is None:
        return None
    row = int(rows[start])
    return Explosion(
        first_step=int(series.first_step[row]),
        layer=_fastest_layer(session.header, series, row),
        before=float(np.median(norms[rows[:start]])),
        peak=float(np.nanmax(_floats(series, "global_norm", "max")[row:, 0])),
        last_step=int(series.last_step[-1]),
        spans=len(rows) - start,
    )


def find_frozen(session: SessionLog) -> records.Warning | None:
    """Return the first variable whose finite gradient was clipped to nothing.

    A sum of squares that overflows makes the norm Inf, and a finite gradient times ``clip_norm / Inf`` is 0.
    A gradient that a mask sets to 0 on purpose looks the same but for its size. So either its squares must be
    out of its dtype's range, or clipping must have left nothing of any gradient.

    Args:
        session: its ``clip_ratio`` and ``grad_norm`` are looked at.

    Returns:
        ``None`` where no gradient was clipped to nothing, and where the log has no clip ratio.
    """
    frozen = _frozen_cells(session)
    if frozen is None or not frozen.any():
        return None
    row = int(frozen.any(axis=1).argmax())
    first = [session.header.variables[column] for column in np.flatnonzero(frozen[row])]
    others = int(frozen.any(axis=0).sum()) - 1
    layers = {variable.layer for variable in first}
    step = int(session.series.first_step[row])
    text = (
        f"From step {step:,} on, clipping left nothing of the finite gradient of {shortened(first[0].name)}"
        f"{f' and of {others:,} more' if others else ''}: what is clipped to 0 does not learn."
    )
    return records.Warning("frozen", step, layers.pop() if len(layers) == 1 else None, text)


def norm_limit(variable: Variable) -> float:
    """Return the norm above which the sum of squares is out of range in the variable's own dtype."""
    return math.sqrt(largest(variable.dtype))


def _floats(series: Series, stat: str, keeps: str) -> _Floats:
    return series.column(stat, keeps).astype(np.float64)


def _onset(norms: _Floats, *, staying: int) -> int | None:
    lowest_after = np.minimum.accumulate(norms[::-1])[::-1]
    lowest_before = np.minimum.accumulate(np.concatenate([[np.inf], norms[:-1]]))
    # A median is no less than the least: most runs never come near, and are spared the sorting.
    if not np.any(lowest_after >= np.maximum(EXPLODING_RATIO * lowest_before, _QUIET_BELOW)):
        return None
    rows = range(_SPANS_BEFORE, len(norms) - staying + 1)
    for row, median in enumerate(_running_medians(norms)):
        threshold = max(EXPLODING_RATIO * median, _QUIET_BELOW)
        if row in rows and median > 0 and lowest_after[row] >= threshold:
            return row
    return None


def _running_medians(norms: _Floats) -> Iterator[float]:
    """Yield for every row the median of the rows before it, 0 for the first."""
    ordered: list[float] = []
    for norm in cast("list[float]", norms.tolist()):
        middle = len(ordered) // 2
        yield (ordered[middle] + ordered[~middle]) / 2 if ordered else 0.0
        bisect.insort(ordered, norm)


def _fastest_layer(header: Header, series: Series, row: int) -> str | None:
    if ("grad_norm", "mean") not in series.columns:
        return None
    norms = _floats(series, "grad_norm", "mean")
    grown = [(_growth(norms[:, columns], row), layer) for layer, columns in layer_columns(header).items()]
    ranked = sorted((pair for pair in grown if math.isfinite(pair[0])), key=lambda pair: pair[0], reverse=True)
    if not ranked or (len(ranked) > 1 and ranked[0][0] < _LEADING_RATIO * ranked[1][0]):
        return None
    return ranked[0][1]


def _growth(norms: _Floats, row: int) -> float:
    layer = combined_norm(norms).astype(np.float64)
    before, after = (part[np.isfinite(part)] for part in (layer[:row], layer[row:]))
    if not len(before) or not len(after) or np.median(before) == 0:
        return math.nan
    return float(np.median(after) / np.median(before))


def _frozen_cells(session: SessionLog) -> _Flags | None:
    series = session.series
    if ("clip_ratio", "min") not in series.columns or ("grad_norm", "max") not in series.columns:
        return None
    ratio, norm = _floats(series, "clip_ratio", "min"), _floats(series, "grad_norm", "max")
    nothing_left, has_gradient = (ratio == 0) & (norm > 0), norm > 0
    limits = np.array([norm_limit(variable) for variable in session.header.variables])
    everything = (nothing_left | ~has_gradient).all(axis=1, keepdims=True)
    # Beside a gradient that is Inf, a global clip leaves 0 of all others: that step has a worse trouble.
    sound = (series.column("grad_norm", "nonfinite") == 0).all(axis=1, keepdims=True)
    return cast("_Flags", nothing_left & sound & ((norm >= limits) | everything))
