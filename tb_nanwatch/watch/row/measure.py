"""What is computed of each tensor on the device: one reduction always, the rest only when that one is in doubt."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from tb_nanwatch.watch.row.cells import ABSENT, LEAST_MEANT, MEANT
from tb_nanwatch.watch.tf_internals import is_in_xla

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices | None"


class Seldom(NamedTuple):
    """A tensor that is measured in some steps, and in the others is as if it were not there.

    Attributes:
        tensor: floating, any shape.
        is_due: whether this step is one of them, a bool scalar.
    """

    tensor: tf.Tensor
    is_due: tf.Tensor


class Begun(NamedTuple):
    """A variable's value in which infinities that were there as watching began are meant, and count as 0.

    Attributes:
        tensor: floating, ``[...]`` of ``size`` elements.
        places: of what was infinite among the elements of all variables, int64 ``[k]``.
        first: the place of this variable's first element.
        size: how many elements it has.
        is_whole: whether every infinity is meant if one was there, and not only those in the same places.
    """

    tensor: tf.Tensor
    places: tf.Tensor
    first: int
    size: int
    is_whole: bool


Measured: TypeAlias = "Gradient | Seldom | Begun"


def half_sum_of_squares(gradient: Measured) -> tf.Tensor:
    """Return a tensor's cell: half its sum of squares, a scalar float32.

    Finite if and only if every element is finite and no square overflowed, so a finite cell proves a finite tensor,
    and one that is not finite is a question that :func:`count` answers. A float16 or bfloat16 tensor is squared in
    float32. Of a sparse gradient it is the values that count, as in ``tf.linalg.global_norm``.

    Args:
        gradient: any floating dtype and shape; ``None`` for a variable without a gradient.

    Returns:
        ``ABSENT`` for ``None``.
    """
    if isinstance(gradient, Seldom):
        absent = tf.constant(ABSENT, tf.float32)
        return tf.cond(gradient.is_due, lambda: half_sum_of_squares(gradient.tensor), lambda: absent)
    gradient = gradient.tensor if isinstance(gradient, Begun) else gradient
    values = dense_values(gradient)
    if values is None:
        return tf.constant(ABSENT, tf.float32)
    if values.dtype.size < tf.float32.size:
        values = tf.cast(values, tf.float32)
    taken = _half_sum_taken_already(values)
    return tf.cast(_half_sum(values) if taken is None else taken, tf.float32)


def half_sums_of_squares(gradients: Sequence[Measured]) -> tf.Tensor:
    """Return the cells of tensors, float32 ``[n]``; see :func:`half_sum_of_squares`.

    Where ``clip_by_norm`` takes the sum of squares of each tensor, that one is used.
    """
    sums = [_sum_taken_already(gradient) for gradient in gradients]
    if all(taken is None for taken in sums):
        return tf.stack([half_sum_of_squares(gradient) for gradient in gradients])
    cells = [half_sum_of_squares(one) if taken is None else taken for one, taken in zip(gradients, sums, strict=True)]
    return single_elements(cells) * tf.constant([1.0 if taken is None else 0.5 for taken in sums])


def single_elements(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return tensors of one element each, of one dtype and any rank, as one vector."""
    if all(tensor.shape.rank == 0 for tensor in tensors):
        return tf.stack(tensors)
    return tf.concat([one if one.shape.rank == 1 else tf.reshape(one, [1]) for one in tensors], axis=0)


def loss_cell(loss: tf.Tensor) -> tf.Tensor:
    """Return the loss's cell: the loss, or its mean where it has one for each sample."""
    single = tf.cast(loss, tf.float32)
    return single if single.shape.rank == 0 else tf.reduce_mean(single)


def count(gradient: Gradient) -> tf.Tensor:
    """Return the exact counts of a tensor: size, NaN, +Inf, -Inf; int64 ``[4]``, zeros for ``None``.

    By ``is_nan`` and ``is_inf`` and never by a maximum: compiled by XLA, a maximum passes over NaN.
    """
    values = dense_values(gradient)
    if values is None:
        return tf.zeros([4], tf.int64)
    counts: tf.Tensor = _traced_once(_count, values.dtype)(tf.reshape(values, [-1]))
    return counts


def closely(gradient: Measured) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the exact counts of a tensor, and its cell now that they are known: Inf or NaN only if an element is.

    Where all are finite and their squares overflow, the cell is minus the norm, taken with scaling. Both come from one
    function, so that each tensor adds a single call to the graph.

    Args:
        gradient: as for :func:`half_sum_of_squares`.

    Returns:
        int64 ``[4]`` as of :func:`count`, and float32 scalar.
    """
    if isinstance(gradient, Seldom):
        counts, cell = closely(gradient.tensor)
        nothing, absent = tf.zeros([4], tf.int64), tf.constant(ABSENT, tf.float32)
        return tf.where(gradient.is_due, counts, nothing), tf.where(gradient.is_due, cell, absent)
    gradient = _without_begun(gradient) if isinstance(gradient, Begun) else gradient
    values = dense_values(gradient)
    if values is None:
        return tf.zeros([4], tf.int64), tf.constant(ABSENT, tf.float32)
    both: tuple[tf.Tensor, tf.Tensor] = _traced_once(_closely, values.dtype)(tf.reshape(values, [-1]))
    return both


def without_meant(
    sampled: Seldom, seen: tuple[tf.Tensor, tf.Tensor], *, is_harmless: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the counts and the cell of a tensor whose infinities are meant, where nothing else of the step is bad.

    Args:
        sampled: the tensor.
        seen: what :func:`closely` gives for it.
        is_harmless: whether its infinities left the results of the step finite, a bool scalar.

    Returns:
        ``seen`` where it holds a NaN or no infinity; else no count of what is bad, and the cell of the other elements.
    """
    counts, cell = seen
    is_meant = is_harmless & tf.equal(counts[1], 0) & (tf.reduce_sum(counts[2:]) > 0)
    _, rest = closely(without_infinity(sampled.tensor))
    marked = -tf.maximum(tf.sqrt(2.0) * tf.sqrt(tf.maximum(rest, 0)) * MEANT, LEAST_MEANT)
    rest = tf.where(rest < 0, rest, marked)
    return tf.where(is_meant, counts * tf.constant([1, 0, 0, 0], tf.int64), counts), tf.where(is_meant, rest, cell)


def without_infinity(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor with 0 in the place of every infinity."""
    return tf.where(tf.math.is_inf(tensor), tf.zeros_like(tensor), tensor)


def settled_loss(loss: tf.Tensor) -> tf.Tensor:
    """Return the loss's cell, with a mean that overflows (of losses that are all finite) held at float32's limit."""
    cell = loss_cell(loss)
    held = tf.clip_by_value(cell, tf.float32.min, tf.float32.max)
    return tf.where(tf.reduce_all(tf.math.is_finite(loss)), held, cell)


def clipped_cells(raw: tf.Tensor, factors: Sequence[tuple[str, tf.Tensor]]) -> tf.Tensor:
    """Return the cells after a norm clip from those before it: the factor squared, times the sum of squares.

    Sound as a check: with a finite sum of squares and a finite product, no element of the clipped gradient overflows.

    Args:
        raw: float32 ``[V]``.
        factors: (``"Mul"`` or ``"RealDiv"``, scalar or ``[V]``) in the order in which the clip applies them.
    """
    scale = tf.ones([], tf.float32)
    for operation, factor in factors:
        scale = scale * factor if operation == "Mul" else scale / factor
    return raw * tf.square(scale)


def unscaled_cells(cells: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Return the cells of gradients as they would be, had the loss not been scaled.

    Args:
        cells: float32 ``[n]``, as :func:`half_sum_of_squares` and :func:`closely` spell them.
        scale: positive scalar.
    """
    factor = 1.0 / tf.cast(scale, tf.float32)
    is_norm, is_absent = cells < ABSENT, tf.equal(cells, ABSENT)
    return tf.where(is_absent, cells, cells * tf.where(is_norm, factor, tf.square(factor)))


def scaled(gradient: Gradient, factors: Sequence[tuple[str, tf.Tensor]], column: int) -> tf.Tensor | None:
    """Return a gradient as a norm clip leaves it, or ``None`` where there is none.

    Args:
        gradient: before clipping.
        factors: as for :func:`clipped_cells`.
        column: the gradient's place among them.
    """
    values = dense_values(gradient)
    if values is None:
        return None
    for operation, factor in factors:
        one = tf.cast(factor if factor.shape.rank == 0 else factor[column], values.dtype)
        values = values * one if operation == "Mul" else values / one
    return values


def dense_values(gradient: Gradient) -> tf.Tensor | None:
    """Return the floating values of a gradient, or ``None`` where there are none to measure."""
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return values if values is not None and values.dtype.is_floating else None


def parts_of(gradient: Gradient) -> list[tf.Tensor]:
    """Return the tensors that a gradient is made of: none, one, or the values and indices of a sparse one."""
    if isinstance(gradient, tf.IndexedSlices):
        return [gradient.values, gradient.indices]
    return [] if gradient is None else [gradient]


def _count(values: tf.Tensor) -> tf.Tensor:
    inf, positive = tf.math.is_inf(values), values > 0
    masks = (tf.math.is_nan(values), inf & positive, inf & ~positive)
    return tf.stack([tf.size(values, tf.int64), *(tf.math.count_nonzero(mask, dtype=tf.int64) for mask in masks)])


def _without_begun(begun: Begun) -> tf.Tensor:
    """Return the elements of a tensor, flat, with 0 in the place of the infinities that are meant."""
    flat = tf.reshape(begun.tensor, [-1])
    span = tf.constant([begun.first, begun.first + begun.size], tf.int64)
    # What is added to a variable may have fewer elements.
    is_whole = begun.is_whole or begun.tensor.shape.num_elements() != begun.size
    clear = _clearing(_cleared_whole if is_whole else _cleared_places, flat.dtype)
    cleared: tf.Tensor = clear(flat, begun.places, span)
    return cleared


def _cleared_whole(flat: tf.Tensor, places: tf.Tensor, span: tf.Tensor) -> tf.Tensor:
    was_infinite = tf.reduce_any((places >= span[0]) & (places < span[1]))
    return tf.where(was_infinite & tf.math.is_inf(flat), tf.zeros_like(flat), flat)


def _cleared_places(flat: tf.Tensor, places: tf.Tensor, span: tf.Tensor) -> tf.Tensor:
    own = tf.boolean_mask(places - span[0], (places >= span[0]) & (places < span[1]))[:, tf.newaxis]
    was_infinite = tf.scatter_nd(own, tf.ones([tf.size(own)], tf.int32), [span[1] - span[0]]) > 0
    return tf.where(was_infinite & tf.math.is_inf(flat), tf.zeros_like(flat), flat)


@functools.cache
def _clearing(function: Callable[..., tf.Tensor], dtype: tf.DType) -> Callable[..., tf.Tensor]:
    with tf.init_scope():
        places, span = tf.TensorSpec([None], tf.int64), tf.TensorSpec([2], tf.int64)
        traced = tf.function(function, autograph=False)
        concrete: Callable[..., tf.Tensor] = traced.get_concrete_function(tf.TensorSpec([None], dtype), places, span)
        return concrete


def _closely(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    counts = _count(values)
    return counts, _settle(values, counts)


def _settle(values: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    wide = values if values.dtype == tf.float64 else tf.cast(values, tf.float32)
    squares = tf.cast(tf.nn.l2_loss(wide), tf.float32)
    finite = tf.where(tf.math.is_finite(squares), squares, -_scaled_norm(wide))
    spoilt = tf.where(counts[1] > 0, tf.constant(float("nan")), tf.constant(float("inf")))
    return tf.where(tf.reduce_sum(counts[1:]) > 0, spoilt, finite)


@functools.cache
def _traced_once(function: Callable[[tf.Tensor], Any], dtype: tf.DType) -> Callable[[tf.Tensor], Any]:
    """Return a function of a flat tensor as one operation: tracing it anew for each tensor of a step takes long."""
    traced = tf.function(function, autograph=False)
    with tf.init_scope():
        concrete: Callable[[tf.Tensor], Any] = traced.get_concrete_function(tf.TensorSpec([None], dtype))
        return concrete


def _half_sum(values: tf.Tensor) -> tf.Tensor:
    rank = values.shape.rank
    if rank is None or rank < 2 or not tf.is_symbolic_tensor(values) or not is_in_xla(values.graph):
        return tf.nn.l2_loss(values)
    # XLA adds up all of a tensor one element after the other on a processor; by columns, it adds several at once. It
    # would make one sum of the two again, were there nothing between them.
    columns = tf.reduce_sum(tf.square(values), axis=list(range(rank - 1)))
    return 0.5 * tf.reduce_sum(tf.where(tf.math.is_finite(columns), columns, float("inf")))


def _half_sum_taken_already(values: tf.Tensor) -> tf.Tensor | None:
    # clip_by_global_norm takes the same sum of the same tensor.
    return next((op.outputs[0] for op in _consumers(values) if op.type == "L2Loss"), None)


def _sum_taken_already(gradient: Measured) -> tf.Tensor | None:
    """Return the sum of squares that ``clip_by_norm`` takes of the same tensor: of one element, of any rank."""
    values = None if isinstance(gradient, Seldom | Begun) else dense_values(gradient)
    if values is None or values.dtype != tf.float32:
        return None
    products = (op for op in _consumers(values) if op.type == "Mul")
    squares = [op.outputs[0] for op in products if op.inputs[0].name == op.inputs[1].name]
    sums = (op.outputs[0] for square in squares for op in _consumers(square) if op.type == "Sum")
    return next((one for one in sums if one.shape.num_elements() == 1), None)


def _consumers(values: tf.Tensor) -> list[Any]:
    if not tf.is_symbolic_tensor(values) or values.graph is not tf.compat.v1.get_default_graph():
        return []
    return list(values.consumers())


def _scaled_norm(values: tf.Tensor) -> tf.Tensor:
    magnitudes = tf.abs(tf.reshape(values, [-1]))
    peak = tf.reduce_max(tf.concat([magnitudes, tf.zeros([1], magnitudes.dtype)], axis=0))
    safe = tf.where(peak > 0, peak, tf.ones_like(peak))
    norm = tf.sqrt(tf.reduce_sum(tf.square(magnitudes / safe))) * safe
    return tf.cast(tf.clip_by_value(norm, 0, tf.cast(tf.float32.max, norm.dtype)), tf.float32)
