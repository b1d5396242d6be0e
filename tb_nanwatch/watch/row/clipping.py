"""Clipping: what kind a traced step uses, and what follows from it for the clipped gradients.

A clip by norm multiplies and divides each gradient by scalars and does nothing else to it. The norm after such a clip
follows from the norm before it, so the row needs no second reduction for each gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tb_nanwatch.schema.records import ClipKind
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.measure import Gradient, dense_values, single_elements

Factor = tuple[str, tf.Tensor]
"""``"Mul"`` or ``"RealDiv"``, and a scalar or ``[V]``."""
_Chains = list[tuple[Factor, ...]]
_WIDE = (tf.float32, tf.float64)
_PASSING = ("Identity", "StopGradient")
_FIXED_ARITY = 2


def clip_kind(raw: Sequence[Gradient] | None, clipped: Sequence[Gradient]) -> ClipKind:
    """Return how a step clips its gradients: ``"scale"`` for a clip by norm, ``"other"`` for anything else.

    Args:
        raw: gradients before clipping; ``None`` where nothing clips.
        clipped: the same gradients after clipping.
    """
    if raw is None:
        return "none"
    return "other" if _chains(raw, clipped) is None else "scale"


def scale_factors(raw: Sequence[Gradient], clipped: Sequence[Gradient]) -> list[Factor] | None:
    """Return the factors by which a clip by norm scales each gradient; ``None`` for any other clip.

    Args:
        raw: gradients before clipping, ``[V]``.
        clipped: the same gradients after clipping.

    Returns:
        The factors in the order in which the clip applies them. A gradient that is ``None`` has a factor of 1.
    """
    chains = _chains(raw, clipped)
    if chains is None:
        return None
    present = [gradient is not None for gradient in raw]
    steps = zip(*chains, strict=True)
    return [(step[0][0], _one_factor([factor for _, factor in step], present)) for step in steps]


def clipped_cells(raw: tf.Tensor, factors: Sequence[Factor]) -> tf.Tensor:
    """Return the cells after a clip by norm from those before it: the sum of squares times the factor squared.

    This is sound as a check: if the sum of squares and the product are finite, no clipped element overflows.

    Args:
        raw: float32 ``[V]``, half sums of squares.
        factors: from :func:`scale_factors`.
    """
    scale = tf.ones([], tf.float32)
    for operation, factor in factors:
        scale = scale * factor if operation == "Mul" else scale / factor
    return raw * tf.square(scale)


def keep_absent(cells: tf.Tensor, gradients: Sequence[Gradient]) -> tf.Tensor:
    """Return cells with ``ABSENT`` for each gradient that is ``None``.

    Args:
        cells: float32 ``[V]``.
        gradients: ``[V]``.
    """
    absent = [gradient is None for gradient in gradients]
    return tf.where(tf.constant(absent), ABSENT, cells) if any(absent) else cells


def scaled_gradient(gradient: Gradient, factors: Sequence[Factor], column: int) -> tf.Tensor | None:
    """Return a gradient as a clip by norm leaves it; ``None`` where there is none.

    Args:
        gradient: before clipping.
        factors: from :func:`scale_factors`.
        column: the gradient's index among all gradients.
    """
    values = dense_values(gradient)
    if values is None:
        return None
    for operation, factor in factors:
        scalar = tf.cast(factor if factor.shape.rank == 0 else factor[column], values.dtype)
        values = values * scalar if operation == "Mul" else values / scalar
    return values


def _chains(raw: Sequence[Gradient], clipped: Sequence[Gradient]) -> _Chains | None:
    """Return the factors of each gradient that exists; ``None`` unless the same operations scale all of them."""
    both = zip(raw, clipped, strict=True)
    pairs = [(before, after) for before, after in both if before is not None or after is not None]
    if any(before is None or after is None or before.dtype not in _WIDE for before, after in pairs):
        # In half precision a product may overflow although it is finite in float32, the dtype of the norms.
        return None
    chains = [chain for before, after in pairs if (chain := _chain(before, after)) is not None]
    operations = {tuple(operation for operation, _ in chain) for chain in chains}
    return chains if len(chains) == len(pairs) and len(operations) == 1 else None


def _chain(raw: Gradient, clipped: Gradient) -> tuple[Factor, ...] | None:
    """Return the factors that lead from one gradient to its clipped form; ``None`` for any other operation."""
    if isinstance(raw, tf.IndexedSlices) and isinstance(clipped, tf.IndexedSlices):
        return _chain(raw.values, clipped.values)
    if not _is_symbolic(raw) or not _is_symbolic(clipped):
        return () if raw is clipped else None
    factors: list[Factor] = []
    source: Any = raw
    tensor: Any = clipped
    while tensor.name != source.name:
        step = _step_back(tensor.op)
        if step is None:
            return None
        tensor, factor = step
        factors += [factor] if factor else []
    return tuple(reversed(factors))


def _step_back(op: Any) -> tuple[tf.Tensor, Factor | None] | None:
    """Return the tensor that an operation scales and its factor; ``None`` if it does anything but scale."""
    if op.type in _PASSING:
        return op.inputs[0], None
    if op.type not in ("Mul", "RealDiv") or len(op.inputs) != _FIXED_ARITY:
        return None
    left, right = op.inputs
    if _is_scalar(right):
        return left, (op.type, right)
    return (right, (op.type, left)) if op.type == "Mul" and _is_scalar(left) else None


def _one_factor(factors: list[tf.Tensor], present: list[bool]) -> tf.Tensor:
    """Return one factor for all gradients: a scalar where they share it, else ``[V]``."""
    if all(factor is factors[0] for factor in factors):
        return _flat(factors[0])
    constants = [tf.get_static_value(factor) for factor in factors]
    if all(value is not None and value == constants[0] for value in constants):
        return tf.cast(tf.constant(constants[0]), tf.float32)
    given = iter(_in_float32(factor) for factor in factors)
    return single_elements([next(given) if is_present else tf.ones([]) for is_present in present])


def _flat(factor: tf.Tensor) -> tf.Tensor:
    return _in_float32(factor if factor.shape.rank == 0 else tf.reshape(factor, []))


def _in_float32(factor: tf.Tensor) -> tf.Tensor:
    return factor if factor.dtype == tf.float32 else tf.cast(factor, tf.float32)


def _is_scalar(tensor: tf.Tensor) -> bool:
    return bool(tensor.shape.num_elements() == 1)


def _is_symbolic(tensor: Gradient) -> bool:
    return tensor is not None and bool(tf.is_symbolic_tensor(tensor))
