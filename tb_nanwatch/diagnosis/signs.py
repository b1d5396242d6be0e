"""Warnings about a session, as a table of rules: exploding gradients, frozen variables, sums of micro-batches.

A false alarm costs as much trust as a miss. So each rule needs more than one unusual number. To add a warning, write a
rule and add it to :data:`WARNINGS`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from tb_nanwatch.diagnosis.accumulation import Totals, find_sum
from tb_nanwatch.diagnosis.notes import unfinished_sentence
from tb_nanwatch.diagnosis.operations.ranges import largest
from tb_nanwatch.diagnosis.run_log import SessionLog, layer_columns
from tb_nanwatch.diagnosis.sentences import shorten
from tb_nanwatch.numerics.norms import combined_norm
from tb_nanwatch.schema import records
from tb_nanwatch.schema.records import Header, Series, Variable

EXPLODING_RATIO: Final = 1000.0
"""Least ratio of the norm to the median of all spans before, from the onset of an explosion on."""
_QUIET_BELOW: Final = 1.0
_SPANS_BEFORE: Final = 10
_SPANS_STAYING: Final = 3
_LEADING_RATIO: Final = 2.0

_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Explosion:
    """Gradients whose global norm rises far above its past and stays there.

    Attributes:
        first_step: the onset.
        layer: the layer that grows most, if one stands out.
        before: median of the norm before the onset.
        peak: largest norm from the onset on.
        last_step: the last step of the session.
        spans: the number of spans from the onset on.
    """

    first_step: int
    layer: str | None
    before: float
    peak: float
    last_step: int
    spans: int


@dataclass(frozen=True, eq=False)
class Signs:
    """The signs of trouble in a session, each computed on first use.

    Attributes:
        session: the session; without the bad step and later steps if it has one.
        is_before_bad: whether a non-finite step follows.
    """

    session: SessionLog
    is_before_bad: bool = False

    @cached_property
    def explosion(self) -> Explosion | None:
        """The explosion of the gradients, if they explode."""
        return find_explosion(self.session, is_before_bad=self.is_before_bad)

    @cached_property
    def total(self) -> Totals | None:
        """The totals of micro-batches, if they may be sums."""
        return find_sum(self.session)


class Sign(NamedTuple):
    """A warning without its kind.

    Attributes:
        first_step: the step from which the warning holds.
        layer: the layer that the warning is about; ``None`` for the whole model.
        text: the warning in words.
    """

    first_step: int
    layer: str | None
    text: str


def warnings_about(signs: Signs) -> tuple[records.Warning, ...]:
    """Return the warnings about a session, in the order of :data:`WARNINGS`."""
    found = ((kind, rule(signs)) for kind, rule in WARNINGS.items())
    return tuple(records.Warning(kind, *sign) for kind, sign in found if sign is not None)


def find_explosion(session: SessionLog, *, is_before_bad: bool = False) -> Explosion | None:
    """Return the explosion of the gradients.

    The onset is the first span from which the mean of the global norm stays at least :data:`EXPLODING_RATIO` times the
    median of all spans before. The rule uses the mean and not the peak, because a long span may have a single peak. A
    norm below 1 does not count: before the first reward, a flat loss has gradients near 0 that then rise.

    Args:
        session: at least 10 spans must come before the onset.
        is_before_bad: whether a non-finite step follows. If not, at least 3 spans must stay high, because a spike at
            the end of a run is no explosion.

    Returns:
        ``None`` if nothing explodes, or if the log has no global norm.
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


def norm_limit(variable: Variable) -> float:
    """Return the norm above which the sum of squares overflows the variable's dtype."""
    return math.sqrt(largest(variable.dtype))


def _exploding(signs: Signs) -> Sign | None:
    explosion = signs.explosion
    if explosion is None:
        return None
    most = f", most of all in the layer {shorten(explosion.layer)}" if explosion.layer else ""
    text = (
        f"The gradients explode from step {explosion.first_step:,} on: their global norm rose from "
        f"{explosion.before:.3g}, the median until then, to {explosion.peak:.3g}{most}."
    )
    return Sign(explosion.first_step, explosion.layer, text)


def _frozen(signs: Signs) -> Sign | None:
    """Return the first variable whose finite gradient is clipped to zero.

    A sum of squares that overflows makes the norm Inf, and a finite gradient times ``clip_norm / Inf`` is 0. A mask
    that sets a gradient to 0 on purpose looks the same, except for the size of the gradient. So either the squares of
    the gradient must overflow its dtype, or clipping must set every gradient of the step to 0.
    """
    session, frozen = signs.session, _frozen_cells(signs.session)
    if frozen is None or not frozen.any():
        return None
    row = int(frozen.any(axis=1).argmax())
    first = [session.header.variables[column] for column in np.flatnonzero(frozen[row])]
    others = int(frozen.any(axis=0).sum()) - 1
    layers = {variable.layer for variable in first}
    step = int(session.series.first_step[row])
    text = (
        f"From step {step:,} on, clipping left nothing of the finite gradient of {shorten(first[0].name)}"
        f"{f' and of {others:,} more' if others else ''}: a variable whose gradient is clipped to 0 does not learn."
    )
    return Sign(step, layers.pop() if len(layers) == 1 else None, text)


def _accumulated_sum(signs: Signs) -> Sign | None:
    total = signs.total
    if total is None or not total.grows:
        return None
    text = (
        f"The gradients that are applied grow with the number of micro-batches ({total.ratio:.3g} times the norm of"
        " one, in the median): they are the sum, so the learning rate grows with it too. Divide by the number of"
        " micro-batches if the mean was intended."
    )
    return Sign(total.first_step, None, text)


def _unfinished_step(signs: Signs) -> Sign | None:
    if not signs.session.unfinished:
        return None
    alert = signs.session.unfinished[-1]
    notes = alert.replay.notes if alert.replay and not alert.findings else ()
    return Sign(alert.step, None, " ".join([unfinished_sentence(alert), *notes]))


WARNINGS: Final[Mapping[str, Callable[[Signs], Sign | None]]] = {
    "exploding": _exploding,
    "frozen": _frozen,
    "accumulated-sum": _accumulated_sum,
    "unfinished-step": _unfinished_step,
}
"""The rule for each kind of warning."""


def _floats(series: Series, stat: str, keeps: str) -> _Floats:
    return series.column(stat, keeps).astype(np.float64)


def _onset(norms: _Floats, *, staying: int) -> int | None:
    lowest_after = np.minimum.accumulate(norms[::-1])[::-1]
    lowest_before = np.minimum.accumulate(np.concatenate([[np.inf], norms[:-1]]))
    # A median is never below the minimum. Most runs fail this cheap test and skip the running medians.
    if not np.any(lowest_after >= np.maximum(EXPLODING_RATIO * lowest_before, _QUIET_BELOW)):
        return None
    rows = range(_SPANS_BEFORE, len(norms) - staying + 1)
    for row, median in enumerate(_running_medians(norms)):
        threshold = max(EXPLODING_RATIO * median, _QUIET_BELOW)
        if row in rows and median > 0 and lowest_after[row] >= threshold:
            return row
    return None


def _running_medians(norms: _Floats) -> Iterator[float]:
    """Yield for each row the median of the rows before it; 0 for the first row."""
    ordered: list[float] = []
    for norm in cast("list[float]", norms.tolist()):
        middle = len(ordered) // 2
        yield (ordered[middle] + ordered[~middle]) / 2 if ordered else 0.0
        bisect.insort(ordered, norm)


def _fastest_layer(header: Header, series: Series, row: int) -> str | None:
    if ("grad_norm", "mean") not in series.columns:
        return None
    norms = _floats(series, "grad_norm", "mean")
    growths = [(_growth(norms[:, columns], row), layer) for layer, columns in layer_columns(header).items()]
    ranked = sorted((pair for pair in growths if math.isfinite(pair[0])), key=lambda pair: pair[0], reverse=True)
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
    has_gradient = norm > 0
    is_zeroed = (ratio == 0) & has_gradient
    limits = np.array([norm_limit(variable) for variable in session.header.variables])
    are_all_zeroed = (is_zeroed | ~has_gradient).all(axis=1, keepdims=True)
    # If a gradient is Inf, a global clip sets all others to 0. That step has a worse problem.
    are_all_finite = (series.column("grad_norm", "nonfinite") == 0).all(axis=1, keepdims=True)
    return cast("_Flags", is_zeroed & are_all_finite & ((norm >= limits) | are_all_zeroed))
