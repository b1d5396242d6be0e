"""How gradients are clipped: the scalar factors of a clip, read from the graph before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tb_nanwatch.watch.graphs import Op
from tb_nanwatch.watch.row.measure import Gradient, single_elements

Factor = tuple[str, tf.Tensor]

_WIDE = (tf.float32, tf.float64)
_PASSING = ("Identity", "StopGradient")
_FIXED_ARITY = 2


def scale_factors(raw: Sequence[Gradient], clipped: Sequence[Gradient]) -> list[Factor] | None:
    """Return the factors by which a norm clip scales each gradient; ``None`` if it does anything else to one of them.

    ``clip_by_norm`` and ``clip_by_global_norm`` only multiply and divide a gradient by scalars. So the norm after
    clipping follows from the norm before it, and nothing is measured twice.

    Args:
        raw: gradients before clipping, ``[V]``.
        clipped: the same after clipping.

    Returns:
        (``"Mul"`` or ``"RealDiv"``, scalar or ``[V]``), in the order in which the clip applies them; a gradient that
        is ``None`` has a factor of 1.
    """
    pairs = [(a, b) for a, b in zip(raw, clipped, strict=True) if a is not None or b is not None]
    if any(a is None or b is None or a.dtype not in _WIDE for a, b in pairs):
        # In half precision a product may overflow that is finite in the float32 that norms are taken in.
        return None
    chains = [_chain(before, after) for before, after in pairs]
    if not chains or any(chain is None for chain in chains):
        return None
    known = [chain for chain in chains if chain is not None]
    if len({tuple(operation for operation, _ in chain) for chain in known}) != 1:
        return None
    present = [gradient is not None for gradient in raw]
    steps = zip(*known, strict=True)
    return [(step[0][0], _one_factor([factor for _, factor in step], present)) for step in steps]


def _chain(raw: Gradient, clipped: Gradient) -> tuple[Factor, ...] | None:
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


def _step_back(op: Op) -> tuple[tf.Tensor, Factor | None] | None:
    if op.type in _PASSING:
        return op.inputs[0], None
    if op.type not in ("Mul", "RealDiv") or len(op.inputs) != _FIXED_ARITY:
        return None
    left, right = op.inputs
    if _is_scalar(right):
        return left, (op.type, right)
    return (right, (op.type, left)) if op.type == "Mul" and _is_scalar(left) else None


def _one_factor(factors: list[tf.Tensor], present: list[bool]) -> tf.Tensor:
    if all(factor is factors[0] for factor in factors):
        return _flat(factors[0])
    constants = [tf.get_static_value(factor) for factor in factors]
    if all(value is not None and value == constants[0] for value in constants):
        return tf.cast(tf.constant(constants[0]), tf.float32)
    given = iter(_wide(factor) for factor in factors)
    return single_elements([next(given) if there else tf.ones([]) for there in present])


def _flat(factor: tf.Tensor) -> tf.Tensor:
    return _wide(factor if factor.shape.rank == 0 else tf.reshape(factor, []))


def _wide(factor: tf.Tensor) -> tf.Tensor:
    return factor if factor.dtype == tf.float32 else tf.cast(factor, tf.float32)


def _is_scalar(tensor: tf.Tensor) -> bool:
    return bool(tensor.shape.num_elements() == 1)


def _is_symbolic(tensor: Gradient) -> bool:
    return tensor is not None and bool(tf.is_symbolic_tensor(tensor))
