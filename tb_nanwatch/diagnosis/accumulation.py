"""The check whether accumulated gradients are the sum of micro-batches where the mean may be meant.

The norm of a mean is never above the largest norm of its gradients, and does not grow with their number. The norm of a
sum can do both. A sum alone is no fault: many programs divide each loss by the number of micro-batches first. Then the
norm of the total does not grow with that number, and the norm of each micro-batch shrinks as its inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.diagnosis.run_log import SessionLog
from tb_nanwatch.numerics.norms import combined_norm

_FEWEST_STEPS: Final = 20
"""Steps with the same number of micro-batches that make a reliable median."""
_GROWTH: Final = 0.4
"""Least exponent of the total's norm over the number of micro-batches. A sum has 0.5 to 1, a mean 0 or less."""
_FEWEST_CHANGES: Final = 10
"""Least number of steps at which the number of micro-batches changes."""
_SHRINKING: Final = -0.5
"""Exponent of one micro-batch's norm over their number: -1 if the program divides each loss by the number, else 0."""
_ERRORS: Final = 2.5
"""Standard errors by which the exponent must exceed ``_SHRINKING``."""
_LONGER: Final = 1.05
"""Least ratio of the total's norm to that of a micro-batch."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Totals:
    """The norm of accumulated gradients compared with the norm of a micro-batch.

    Attributes:
        first_step: the first step with both norms.
        microbatches: median number of micro-batches.
        ratio: median of the total's norm over the norm of a micro-batch.
        grows: whether the total grows with the number of micro-batches, by its own norm or by that of a micro-batch.
        may_grow: whether growth is more likely than not, although it may be chance.
    """

    first_step: int
    microbatches: int
    ratio: float
    grows: bool
    may_grow: bool


def find_sum(session: SessionLog) -> Totals | None:
    """Compare the totals of a session with its micro-batches.

    Args:
        session: its ``microbatches``, ``microbatch_norm`` and ``global_norm`` are read.

    Returns:
        ``None`` if the session does not accumulate, or if its totals may be means.
    """
    series = session.series
    if ("microbatches", "max") not in series.columns or ("microbatch_norm", "mean") not in series.columns:
        return None
    most, fewest = (series.column("microbatches", keeps)[:, 0].astype(np.float64) for keeps in ("max", "min"))
    total_norm = series.column("global_norm", "mean")[:, 0].astype(np.float64)
    norm = combined_norm(series.column("microbatch_norm", "mean").astype(np.float64)).astype(np.float64)
    is_known = (most == fewest) & (most > 1) & (norm > 0) & np.isfinite(total_norm) & np.isfinite(norm)
    rows = np.flatnonzero(is_known)
    if not len(rows):
        return None
    ratio = float(np.median(total_norm[rows] / norm[rows]))
    if ratio < _LONGER:
        return None
    lowest, likeliest = _exponent(most[rows], norm[rows])
    grows = lowest >= _SHRINKING or _grows(most[rows], total_norm[rows])
    may_grow = grows or likeliest >= _SHRINKING
    return Totals(int(series.first_step[rows[0]]), int(np.median(most[rows])), ratio, grows, may_grow)


def _grows(numbers: _Floats, norms: _Floats) -> bool:
    groups = {float(number): norms[numbers == number] for number in np.unique(numbers)}
    medians = {number: float(np.median(group)) for number, group in groups.items() if len(group) >= _FEWEST_STEPS}
    if len(medians) < 2 or min(medians.values()) <= 0:
        return False
    logs = np.array([(math.log(number), math.log(norm)) for number, norm in medians.items()])
    return bool(np.polyfit(logs[:, 0], logs[:, 1], 1)[0] >= _GROWTH)


def _exponent(numbers: _Floats, norms: _Floats) -> tuple[float, float]:
    """Return the exponent of a micro-batch's norm over their number: a lower bound, and the most likely value.

    Only changes from step to step count. The number of micro-batches may change much between steps, as with the length
    of an episode, while the weights hardly change. So a norm that shrinks as training goes on does not count as one
    that shrinks with the number.

    The estimate is the median of the exponents of all changes, weighted by the size of the change. Its standard error
    is that of the median of a normal distribution with the same interquartile range as the residuals, which makes it
    robust to a spike.
    """
    changes, effects = np.diff(np.log(numbers)), np.diff(np.log(norms))
    has_changed = changes != 0
    if np.count_nonzero(has_changed) < _FEWEST_CHANGES:
        return -math.inf, -math.inf
    power = _weighted_median(effects[has_changed] / changes[has_changed], np.abs(changes[has_changed]))
    deviation = 1.4826 * float(np.median(np.abs(effects - power * changes)))
    error = 1.2533 * deviation / float(np.linalg.norm(changes))
    return power - _ERRORS * error, power


def _weighted_median(values: _Floats, weights: _Floats) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])
