"""A total of micro-batches that is their sum where the mean was meant.

The mean of some gradients is never longer than the longest of them, and does not grow with their number; the sum does
both. That it is the sum is no fault by itself: many divide each loss by the number of micro-batches first. Then the
total's norm does not grow with that number, and that of one micro-batch shrinks as its inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.diagnosis.run_log import SessionLog
from tb_nanwatch.numerics.norms import combined_norm
from tb_nanwatch.schema import records
from tb_nanwatch.schema.records import Series

_FEWEST_STEPS: Final = 20
_GROWTH: Final = 0.4
"""Of the total's norm, as a power of the number of micro-batches: of a sum it is 0.5 to 1, of a mean 0 or less."""
_FEWEST_CHANGES: Final = 10
"""Of the number of micro-batches from one step to the next."""
_SHRINKING: Final = -0.5
"""Of one micro-batch's norm, as a power of their number: where each is divided by that number it is -1, else 0."""
_ERRORS: Final = 2.5
"""How many standard errors the power must lie above that."""
_LONGER: Final = 1.05


@dataclass(frozen=True)
class Totals:
    """How the total's norm compares to that of a micro-batch.

    Attributes:
        first_step: from which step on.
        microbatches: how many there mostly were.
        ratio: the median of the total's norm over a micro-batch's.
        grows: whether the total was seen to grow with the number of micro-batches, by its norm or by that of one.
        may_grow: whether that is more likely than not, though it may be chance.
    """

    first_step: int
    microbatches: int
    ratio: float
    grows: bool
    may_grow: bool

    @property
    def warning(self) -> records.Warning:
        """The warning that says so."""
        text = (
            f"The gradients that are applied grow with the number of micro-batches ({self.ratio:.3g} times the norm of"
            " one, in the median): they are the sum, so the learning rate grows with it too. Divide by the number of"
            " micro-batches if the mean was meant."
        )
        return records.Warning(kind="accumulated-sum", first_step=self.first_step, layer=None, text=text)


def find_sum(session: SessionLog) -> Totals | None:
    """Return how totals compare to micro-batches where they are sums; ``None`` where they may be means.

    Args:
        session: its ``microbatches``, ``microbatch_norm`` and ``global_norm`` are looked at.
    """
    series = session.series
    if ("microbatches", "max") not in series.columns or ("microbatch_norm", "mean") not in series.columns:
        return None
    most, fewest = (series.column("microbatches", keeps)[:, 0].astype(np.float64) for keeps in ("max", "min"))
    total = series.column("global_norm", "mean")[:, 0].astype(np.float64)
    one = combined_norm(series.column("microbatch_norm", "mean").astype(np.float64)).astype(np.float64)
    told = np.flatnonzero((most == fewest) & (most > 1) & (one > 0) & np.isfinite(total) & np.isfinite(one))
    if not len(told):
        return None
    ratio = float(np.median(total[told] / one[told]))
    if ratio < _LONGER:
        return None
    lowest, likeliest = _power_of_one(most[told], one[told])
    grows = lowest >= _SHRINKING or _grows(most[told], total[told])
    may_grow = grows or likeliest >= _SHRINKING
    return Totals(_step(series, int(told[0])), int(np.median(most[told])), ratio, grows, may_grow)


def _grows(numbers: npt.NDArray[np.float64], norms: npt.NDArray[np.float64]) -> bool:
    groups = {float(number): norms[numbers == number] for number in np.unique(numbers)}
    known = {number: float(np.median(some)) for number, some in groups.items() if len(some) >= _FEWEST_STEPS}
    if len(known) < 2 or min(known.values()) <= 0:
        return False
    logs = np.array([(math.log(number), math.log(norm)) for number, norm in known.items()])
    return bool(np.polyfit(logs[:, 0], logs[:, 1], 1)[0] >= _GROWTH)


def _power_of_one(numbers: npt.NDArray[np.float64], norms: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return how one micro-batch's norm goes with their number, as a power of it: at the least, and most likely.

    Told by what changes from step to step, since the number may change much, as with the length of an episode, and the
    weights hardly do: a norm that shrinks as training goes on is not taken for one that shrinks with the number. The
    power is the median of those that each change tells, weighted by its size, and its standard error that of the median
    of a normal distribution as wide as the middle half of what is left: a spike before the end says little.
    """
    changes, effects = np.diff(np.log(numbers)), np.diff(np.log(norms))
    seen = changes != 0
    if np.count_nonzero(seen) < _FEWEST_CHANGES:
        return -math.inf, -math.inf
    power = _weighted_median(effects[seen] / changes[seen], np.abs(changes[seen]))
    deviation = 1.4826 * float(np.median(np.abs(effects - power * changes)))
    error = 1.2533 * deviation / float(np.linalg.norm(changes))
    return power - _ERRORS * error, power


def _weighted_median(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


def _step(series: Series, row: int) -> int:
    return int(series.first_step[row])
