"""How one float32 cell encodes a norm.

A cell holds half the sum of squares of its tensor (the value of ``tf.nn.l2_loss``), because the root is free on the
host and not on the device. Three forms lie outside the range of a sum of squares:

- ``ABSENT`` (-1): there was nothing to measure, as for a variable without a gradient;
- below -1: minus the norm itself. Every element is finite, but the squares overflow. That needs a norm above 1e19, so
  this form cannot be mistaken for the next one;
- between -1 and 0: minus ``INTENDED`` times the norm of the finite elements. The other elements are infinities that the
  layer puts out on purpose.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

ABSENT: Final = -1.0
INTENDED: Final = 2.0**-65
"""The product with any norm whose squares do not overflow in float32 is below 1. A power of 2 loses no digit."""
LEAST_INTENDED: Final = float(np.finfo(np.float32).tiny)
"""It replaces a smaller product: a cell of 0 means that nothing was infinite."""

Rows = npt.NDArray[np.float32]


def norms_of(cells: Rows) -> Rows:
    """Return the norms that cells encode; NaN where a cell is ``ABSENT``."""
    with np.errstate(over="ignore"):
        norms: Rows = np.sqrt(2.0 * np.maximum(cells, np.float32(0)))
    overflows = np.isinf(norms)
    if overflows.any():
        # Twice a number may be out of float32's range although its root is not.
        norms[overflows] = np.sqrt(2.0 * cells[overflows].astype(np.float64))
    is_other = cells < 0
    if is_other.any():
        others = cells[is_other]
        with np.errstate(over="ignore"):
            finite_parts = np.where(others < -LEAST_INTENDED, others / np.float32(-INTENDED), 0)
        norms[is_other] = np.where(others < ABSENT, -others, np.where(others == ABSENT, np.nan, finite_parts))
    return norms


def has_intended_infinities(cells: Rows) -> npt.NDArray[np.bool_]:
    """Return which cells encode the norm of a tensor with infinities on purpose."""
    return np.asarray((cells < 0) & (cells > ABSENT))


def half_squares(cells: Rows) -> npt.NDArray[np.float64]:
    """Return the half sums of squares that cells encode, in float64; 0 where a cell is ``ABSENT``."""
    wide = cells.astype(np.float64)
    return np.where(wide < ABSENT, wide * wide / 2, np.where(wide == ABSENT, 0.0, wide))
