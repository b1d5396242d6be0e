"""How each tensor is measured on the device: one reduction in every step, exact counts only in a doubtful step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from tb_nanwatch.watch.row.encoding import ABSENT, INTENDED, LEAST_INTENDED
from tb_nanwatch.watch.tf_internals import is_in_xla

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices | None"


class SampledTensor(NamedTuple):
    """A tensor that only some steps measure; in the others its cell is ``ABSENT``.

    Attributes:
        tensor: floating, any shape.
        is_due: whether this step measures it, a bool scalar.
    """

    tensor: tf.Tensor
    is_due: tf.Tensor


class InitiallyInfinite(NamedTuple):
    """A variable's value in which the infinities from before training count as 0.

    Attributes:
        tensor: floating, ``[...]`` of ``size`` elements.
        places: indices of the infinite elements, among the elements of all variables together; int64 ``[k]``.
        first: index of this variable's first element among those of all variables.
        size: how many elements it has.
        is_whole: whether one infinity from before training excuses all of the tensor's infinities, wherever they are.
    """

    tensor: tf.Tensor
    places: tf.Tensor
    first: int
    size: int
    is_whole: bool


Measured: TypeAlias = "Gradient | SampledTensor | InitiallyInfinite"


class Resolved(NamedTuple):
    """A tensor measured exactly.

    Attributes:
        counts: size, NaN, +Inf, -Inf; int64 ``[4]``. ``None`` for a number that is never an origin.
        cell: float32 scalar; Inf or NaN only if an element is.
    """

    counts: tf.Tensor | None
    cell: tf.Tensor


def half_sum_of_squares(measured: Measured) -> tf.Tensor:
    """Return a tensor's cell: half its sum of squares, a scalar float32.

    A finite cell proves a finite tensor: the cell is finite if and only if every element is finite and no square
    overflows. :func:`resolve` decides about a cell that is not finite. A float16 or bfloat16 tensor is squared in
    float32. A sparse gradient is measured by its values, as ``tf.linalg.global_norm`` does.

    Args:
        measured: any floating dtype and shape; ``None`` for a variable without a gradient.

    Returns:
        ``ABSENT`` for ``None``.
    """
    if isinstance(measured, SampledTensor):
        absent = tf.constant(ABSENT, tf.float32)
        return tf.cond(measured.is_due, lambda: half_sum_of_squares(measured.tensor), lambda: absent)
    values = dense_values(measured.tensor if isinstance(measured, InitiallyInfinite) else measured)
    if values is None:
        return tf.constant(ABSENT, tf.float32)
    if values.dtype.size < tf.float32.size:
        values = tf.cast(values, tf.float32)
    existing = _existing_l2_loss(values)
    return tf.cast(_half_sum(values) if existing is None else existing, tf.float32)


def half_sums_of_squares(gradients: Sequence[Measured]) -> tf.Tensor:
    """Return the cells of tensors, float32 ``[n]``; see :func:`half_sum_of_squares`.

    Where ``clip_by_norm`` computes the sum of squares of each tensor, the cells reuse that sum.
    """
    sums = [_existing_sum_of_squares(gradient) for gradient in gradients]
    if all(existing is None for existing in sums):
        return tf.stack([half_sum_of_squares(gradient) for gradient in gradients])
    cells = [
        half_sum_of_squares(gradient) if existing is None else existing
        for gradient, existing in zip(gradients, sums, strict=True)
    ]
    return single_elements(cells) * tf.constant([1.0 if existing is None else 0.5 for existing in sums])


def single_elements(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return tensors of one element each, of one dtype and any rank, as one vector."""
    if all(tensor.shape.rank == 0 for tensor in tensors):
        return tf.stack(tensors)
    return tf.concat([tensor if tensor.shape.rank == 1 else tf.reshape(tensor, [1]) for tensor in tensors], axis=0)


def loss_cell(loss: tf.Tensor) -> tf.Tensor:
    """Return the loss's cell: the loss, or its mean where it has one value for each sample."""
    single = tf.cast(loss, tf.float32)
    return single if single.shape.rank == 0 else tf.reduce_mean(single)


def unscaled_cells(cells: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Return the cells that gradients would have without the loss scale.

    Args:
        cells: float32 ``[n]``, encoded norms.
        scale: positive scalar.
    """
    factor = 1.0 / tf.cast(scale, tf.float32)
    is_norm, is_absent = cells < ABSENT, tf.equal(cells, ABSENT)
    return tf.where(is_absent, cells, cells * tf.where(is_norm, factor, tf.square(factor)))


def dense_values(gradient: Gradient) -> tf.Tensor | None:
    """Return the floating values of a gradient; ``None`` where there are none to measure."""
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return values if values is not None and values.dtype.is_floating else None


def parts_of(gradient: Gradient) -> list[tf.Tensor]:
    """Return the tensors of a gradient: none, one, or the values and indices of a sparse gradient."""
    if isinstance(gradient, tf.IndexedSlices):
        return [gradient.values, gradient.indices]
    return [] if gradient is None else [gradient]


def count(gradient: Gradient) -> tf.Tensor:
    """Return the exact counts of a tensor: size, NaN, +Inf, -Inf; int64 ``[4]``, zeros for ``None``.

    It uses ``is_nan`` and ``is_inf`` and never a maximum: a maximum compiled by XLA ignores NaN.
    """
    values = dense_values(gradient)
    if values is None:
        return tf.zeros([4], tf.int64)
    counts: tf.Tensor = _traced_once(_count, values.dtype)(tf.reshape(values, [-1]))
    return counts


def resolve(measured: Measured) -> Resolved:
    """Return the exact counts of a tensor and its cell, which is Inf or NaN only if an element is.

    If all elements are finite and their squares overflow, the cell is minus the norm, computed with scaling. One
    function computes both results, so that each tensor adds a single call to the graph.

    Args:
        measured: as for :func:`half_sum_of_squares`.
    """
    if isinstance(measured, SampledTensor):
        counts, cell = resolve(measured.tensor)
        nothing, absent = tf.zeros([4], tf.int64), tf.constant(ABSENT, tf.float32)
        return Resolved(tf.where(measured.is_due, counts, nothing), tf.where(measured.is_due, cell, absent))
    values = dense_values(
        _without_initial_infinities(measured) if isinstance(measured, InitiallyInfinite) else measured
    )
    if values is None:
        return Resolved(tf.zeros([4], tf.int64), tf.constant(ABSENT, tf.float32))
    return Resolved(*_traced_once(_count_and_measure, values.dtype)(tf.reshape(values, [-1])))


def resolve_loss(loss: tf.Tensor) -> Resolved:
    """Return the exact counts of the loss and its cell; a mean of finite losses that overflows becomes float32's limit.

    Args:
        loss: floating, scalar or one value for each sample.
    """
    cell = loss_cell(loss)
    limited = tf.clip_by_value(cell, tf.float32.min, tf.float32.max)
    return Resolved(count(loss), tf.where(tf.reduce_all(tf.math.is_finite(loss)), limited, cell))


def without_intended_infinities(sampled: SampledTensor, resolved: Resolved, *, is_harmless: tf.Tensor) -> Resolved:
    """Return a tensor measured without its infinities, where they are on purpose.

    A layer may put out infinities on purpose, as an attention mask does. They are taken as such if the loss and the
    gradients of the step are finite and the tensor holds no NaN.

    Args:
        sampled: the tensor.
        resolved: the result of :func:`resolve` for it.
        is_harmless: whether the results of the step are finite, a bool scalar.

    Returns:
        ``resolved`` where the tensor holds a NaN or no infinity. Else the counts of its non-finite elements are 0, and
        the cell is that of the other elements.
    """
    counts, cell = resolved
    if counts is None:
        return resolved
    is_intended = is_harmless & tf.equal(counts[1], 0) & (tf.reduce_sum(counts[2:]) > 0)
    _, rest = resolve(without_infinity(sampled.tensor))
    marked = -tf.maximum(tf.sqrt(2.0) * tf.sqrt(tf.maximum(rest, 0)) * INTENDED, LEAST_INTENDED)
    rest = tf.where(rest < 0, rest, marked)
    size_alone = tf.constant([1, 0, 0, 0], tf.int64)
    return Resolved(tf.where(is_intended, counts * size_alone, counts), tf.where(is_intended, rest, cell))


def without_infinity(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor with 0 in place of every infinity."""
    return tf.where(tf.math.is_inf(tensor), tf.zeros_like(tensor), tensor)


def _count(values: tf.Tensor) -> tf.Tensor:
    inf, positive = tf.math.is_inf(values), values > 0
    masks = (tf.math.is_nan(values), inf & positive, inf & ~positive)
    return tf.stack([tf.size(values, tf.int64), *(tf.math.count_nonzero(mask, dtype=tf.int64) for mask in masks)])


def _count_and_measure(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    counts = _count(values)
    wide = values if values.dtype == tf.float64 else tf.cast(values, tf.float32)
    squares = tf.cast(tf.nn.l2_loss(wide), tf.float32)
    finite = tf.where(tf.math.is_finite(squares), squares, -_scaled_norm(wide))
    nonfinite = tf.where(counts[1] > 0, tf.constant(float("nan")), tf.constant(float("inf")))
    return counts, tf.where(tf.reduce_sum(counts[1:]) > 0, nonfinite, finite)


def _scaled_norm(values: tf.Tensor) -> tf.Tensor:
    """Return the norm of finite values without overflow in between, limited to float32's range."""
    magnitudes = tf.abs(tf.reshape(values, [-1]))
    peak = tf.reduce_max(tf.concat([magnitudes, tf.zeros([1], magnitudes.dtype)], axis=0))
    safe = tf.where(peak > 0, peak, tf.ones_like(peak))
    norm = tf.sqrt(tf.reduce_sum(tf.square(magnitudes / safe))) * safe
    return tf.cast(tf.clip_by_value(norm, 0, tf.cast(tf.float32.max, norm.dtype)), tf.float32)


@functools.cache
def _traced_once(function: Callable[[tf.Tensor], Any], dtype: tf.DType) -> Callable[[tf.Tensor], Any]:
    """Return a function of a flat tensor as one operation: a new trace for each tensor of a step takes long."""
    traced = tf.function(function, autograph=False)
    with tf.init_scope():
        concrete: Callable[[tf.Tensor], Any] = traced.get_concrete_function(tf.TensorSpec([None], dtype))
        return concrete


def _without_initial_infinities(value: InitiallyInfinite) -> tf.Tensor:
    """Return the elements of a variable's value, flat, with 0 in place of the infinities from before training."""
    flat = tf.reshape(value.tensor, [-1])
    span = tf.constant([value.first, value.first + value.size], tf.int64)
    # What a step adds to a variable may have fewer elements than the variable.
    is_whole = value.is_whole or value.tensor.shape.num_elements() != value.size
    clear = _clearing(_cleared_whole if is_whole else _cleared_places, flat.dtype)
    cleared: tf.Tensor = clear(flat, value.places, span)
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


def _half_sum(values: tf.Tensor) -> tf.Tensor:
    rank = values.shape.rank
    if rank is None or rank < 2 or not tf.is_symbolic_tensor(values) or not is_in_xla(values.graph):
        return tf.nn.l2_loss(values)
    # On a processor XLA adds up a whole tensor one element after the other; by columns it adds several at once. With
    # nothing between the two sums XLA would merge them into one again.
    columns = tf.reduce_sum(tf.square(values), axis=list(range(rank - 1)))
    return 0.5 * tf.reduce_sum(tf.where(tf.math.is_finite(columns), columns, float("inf")))


def _existing_l2_loss(values: tf.Tensor) -> tf.Tensor | None:
    """Return half the sum of squares that ``clip_by_global_norm`` already computes of the same tensor."""
    return next((op.outputs[0] for op in _consumers(values) if op.type == "L2Loss"), None)


def _existing_sum_of_squares(measured: Measured) -> tf.Tensor | None:
    """Return the sum of squares that ``clip_by_norm`` already computes of the same tensor: one element, any rank."""
    values = None if isinstance(measured, SampledTensor | InitiallyInfinite) else dense_values(measured)
    if values is None or values.dtype != tf.float32:
        return None
    products = (op for op in _consumers(values) if op.type == "Mul")
    squares = [op.outputs[0] for op in products if op.inputs[0].name == op.inputs[1].name]
    sums = (op.outputs[0] for square in squares for op in _consumers(square) if op.type == "Sum")
    return next((total for total in sums if total.shape.num_elements() == 1), None)


def _consumers(values: tf.Tensor) -> list[Any]:
    if not tf.is_symbolic_tensor(values) or values.graph is not tf.compat.v1.get_default_graph():
        return []
    return list(values.consumers())
