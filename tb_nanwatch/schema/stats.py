"""The catalogue of what is measured.

One ordered table fixes everything that would otherwise be agreed on in several places: the order of columns, the keys
in JSON, the union in TypeScript and the table in the documentation. To measure something new, add an entry here, one
NumPy function in :mod:`tb_nanwatch.numerics` and one TensorFlow line in ``tb_nanwatch/watch/measure.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Scope = Literal["variable", "step", "tensor"]
Merge = Literal["min", "max", "mean"]
Combine = Literal["root_sum_square", "min", "none"]


@dataclass(frozen=True)
class Stat:
    """One measured quantity.

    Attributes:
        key: its name in columns, JSON and TypeScript.
        scope: what it is measured of: every trainable variable, the step as a whole, or every watched tensor.
        unit: its unit; ``"1"`` for a bare number.
        dtype: how it is stored.
        meaning: one sentence for people.
        merges: what is kept of it when several steps become one span, in column order. A step that has no finite value
            of it adds nothing here; it is counted in the bookkeeping columns (see :data:`BOOKKEEPING`).
        combine: how the variables of a layer become one figure.
    """

    key: str
    scope: Scope
    unit: str
    dtype: str
    meaning: str
    merges: tuple[Merge, ...]
    combine: Combine


STATS: Final[tuple[Stat, ...]] = (
    Stat(
        key="grad_norm",
        scope="variable",
        unit="1",
        dtype="float32",
        meaning="L2 norm of the gradient, before clipping.",
        merges=("min", "max", "mean"),
        combine="root_sum_square",
    ),
    Stat(
        key="clipped_norm",
        scope="variable",
        unit="1",
        dtype="float32",
        meaning="L2 norm of the gradient that the optimizer is given, after clipping.",
        merges=("max", "mean"),
        combine="root_sum_square",
    ),
    Stat(
        key="clip_ratio",
        scope="variable",
        unit="1",
        dtype="float32",
        meaning="Norm after clipping over norm before; 1 where nothing is clipped, and where both are 0.",
        merges=("min", "mean"),
        combine="min",
    ),
    Stat(
        key="weight_norm",
        scope="variable",
        unit="1",
        dtype="float32",
        meaning="L2 norm of the variable itself, as the step began.",
        merges=("max",),
        combine="root_sum_square",
    ),
    Stat(
        key="loss",
        scope="step",
        unit="1",
        dtype="float32",
        meaning="The loss, as the training step gave it.",
        merges=("min", "max", "mean"),
        combine="none",
    ),
    Stat(
        key="global_norm",
        scope="step",
        unit="1",
        dtype="float32",
        meaning="L2 norm of all gradients together, before clipping.",
        merges=("min", "max", "mean"),
        combine="none",
    ),
    Stat(
        key="clipped_global_norm",
        scope="step",
        unit="1",
        dtype="float32",
        meaning="L2 norm of all gradients together, after clipping.",
        merges=("max", "mean"),
        combine="none",
    ),
    Stat(
        key="loss_scale",
        scope="step",
        unit="1",
        dtype="float32",
        meaning="What the loss was multiplied by, so that gradients in half precision do not vanish.",
        merges=("min", "max"),
        combine="none",
    ),
    Stat(
        key="skipped",
        scope="step",
        unit="1",
        dtype="float32",
        meaning="1 where the update was left out: for an overflow of the scaled gradients, or by the policy; else 0.",
        merges=("max", "mean"),
        combine="none",
    ),
    Stat(
        key="microbatches",
        scope="step",
        unit="1",
        dtype="float32",
        meaning="How many micro-batches the step accumulated.",
        merges=("min", "max"),
        combine="none",
    ),
    Stat(
        key="microbatch_norm",
        scope="variable",
        unit="1",
        dtype="float32",
        meaning="L2 norm of the gradient of one micro-batch: the root of the mean square over those of the step.",
        merges=("max", "mean"),
        combine="root_sum_square",
    ),
    Stat(
        key="tensor_norm",
        scope="tensor",
        unit="1",
        dtype="float32",
        meaning="L2 norm of a tensor that the user chose to watch.",
        merges=("min", "max", "mean"),
        combine="none",
    ),
)

BY_KEY: Final[dict[str, Stat]] = {stat.key: stat for stat in STATS}

BOOKKEEPING: Final[dict[str, str]] = {
    "count": "in how many steps of the span the quantity was measured and finite",
    "nonfinite": "in how many steps of the span it held NaN or Inf",
    "first_nonfinite": "the first such step; -1 where there is none",
    "kinds": "which kinds were seen, as bits: 1 NaN, 2 +Inf, 4 -Inf, 8 Inf of a sign that was not recorded",
}
"""What every statistic keeps besides its own merges: the facts that merging must never lose."""


def of_scope(scope: Scope) -> tuple[Stat, ...]:
    """Return the statistics measured of ``scope``, in catalogue order."""
    return tuple(stat for stat in STATS if stat.scope == scope)
