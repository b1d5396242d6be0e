"""The catalogue of statistics.

This table fixes the order of columns, the keys in JSON, the TypeScript union and the table in the documentation. To add
a statistic, add an entry here and one function that measures it; see CONTRIBUTING.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tb_nanwatch.schema.records import Role

Scope = Literal["variable", "step", "tensor"]
Merge = Literal["min", "max", "mean"]
Combine = Literal["root_sum_square", "min", "none"]


@dataclass(frozen=True)
class Stat:
    """One measured quantity.

    Attributes:
        key: its name in columns, JSON and TypeScript.
        scope: one value per trainable variable, per step, or per watched tensor.
        meaning: a one-sentence description for users.
        merges: values to keep when steps merge into a span, in column order. A step without a finite value does not
            contribute; the bookkeeping columns count it (see :data:`BOOKKEEPING`).
        combine: how the values of a layer's variables become one value.
        unit: its unit; ``"1"`` for a plain number.
        dtype: the dtype that stores it.
        role: role in the step of the tensor that it measures, if that tensor can be an origin.
        unclipped: key of the statistic that it equals in a session without clipping. Such a session does not write it.
    """

    key: str
    scope: Scope
    meaning: str
    merges: tuple[Merge, ...]
    combine: Combine = "none"
    unit: str = "1"
    dtype: str = "float32"
    role: Role | None = None
    unclipped: str | None = None


STATS: Final[tuple[Stat, ...]] = (
    Stat(
        key="grad_norm",
        scope="variable",
        meaning="L2 norm of the gradient, before clipping.",
        merges=("min", "max", "mean"),
        combine="root_sum_square",
        role="gradient",
    ),
    Stat(
        key="clipped_norm",
        scope="variable",
        meaning="L2 norm of the gradient that the optimizer is given, after clipping.",
        merges=("max", "mean"),
        combine="root_sum_square",
        role="clipped",
        unclipped="grad_norm",
    ),
    Stat(
        key="clip_ratio",
        scope="variable",
        meaning="Norm after clipping over norm before; 1 where nothing is clipped, and where both are 0.",
        merges=("min", "mean"),
        combine="min",
    ),
    Stat(
        key="weight_norm",
        scope="variable",
        meaning="L2 norm of the variable itself, as the step began.",
        merges=("max",),
        combine="root_sum_square",
        role="weight",
    ),
    Stat(
        key="loss",
        scope="step",
        meaning="The loss, as the training step gave it.",
        merges=("min", "max", "mean"),
        role="loss",
    ),
    Stat(
        key="global_norm",
        scope="step",
        meaning="L2 norm of all gradients together, before clipping.",
        merges=("min", "max", "mean"),
    ),
    Stat(
        key="clipped_global_norm",
        scope="step",
        meaning="L2 norm of all gradients together, after clipping.",
        merges=("max", "mean"),
        unclipped="global_norm",
    ),
    Stat(
        key="loss_scale",
        scope="step",
        meaning="What the loss was multiplied by, so that gradients in half precision do not vanish.",
        merges=("min", "max"),
    ),
    Stat(
        key="skipped",
        scope="step",
        meaning="1 where the update was left out: for an overflow of the scaled gradients, or by the policy; else 0.",
        merges=("max", "mean"),
    ),
    Stat(
        key="microbatches",
        scope="step",
        meaning="How many micro-batches the step accumulated.",
        merges=("min", "max"),
    ),
    Stat(
        key="microbatch_norm",
        scope="variable",
        meaning="L2 norm of the gradient of one micro-batch: the root of the mean square over those of the step.",
        merges=("max", "mean"),
        combine="root_sum_square",
    ),
    Stat(
        key="tensor_norm",
        scope="tensor",
        meaning="L2 norm of a tensor that the user chose to watch.",
        merges=("min", "max", "mean"),
        role="tensor",
    ),
)

BY_KEY: Final[dict[str, Stat]] = {stat.key: stat for stat in STATS}

BOOKKEEPING: Final[dict[str, str]] = {
    "count": "in how many steps of the span the quantity was measured and finite",
    "nonfinite": "in how many steps of the span it held NaN or Inf",
    "first_nonfinite": "the first such step; -1 where there is none",
    "kinds": "which kinds were seen, as bits: 1 NaN, 2 +Inf, 4 -Inf, 8 Inf of a sign that was not recorded",
}
"""Extra columns of every statistic, by name: the facts that a merge must not lose."""


def of_scope(scope: Scope) -> tuple[Stat, ...]:
    """Return the statistics with this ``scope``, in catalogue order."""
    return tuple(stat for stat in STATS if stat.scope == scope)
