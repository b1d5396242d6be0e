"""Whether the rows of what an operation returned are samples of the batch, or a weight's that happen to be as many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.names import Names

Op = Any
Tensor = Any
_REDUCTIONS: Final = frozenset({"All", "Any", "ArgMax", "ArgMin", "Max", "Mean", "Min", "Prod", "Sum"})
_OF_WEIGHTS: Final = frozenset(
    {
        "BiasAddGrad",
        "Conv2DBackpropFilter",
        "Conv3DBackpropFilterV2",
        "DepthwiseConv2dNativeBackpropFilter",
        "SegmentSum",
        "SegmentSumV2",
        "UnsortedSegmentSum",
    }
)
"""Operations that add up over the batch: the rows of their output are others."""


def are_samples(op: Op, size: int, names: Names) -> bool:
    """Return whether the rows of an operation's output come from the rows of an argument.

    A gradient of a weight, or the weight's own norm, may have as many rows as the batch has samples.
    In a loop the way of the rows is not followed, and the number of rows decides alone.

    Args:
        op: of the trial, with ``size`` rows in its output.
        size: of the batch.
        names: of the trial.
    """
    flow = names.traced.flow
    if flow.is_inside_loop(op.graph):
        return True
    seen: set[tuple[int, str]] = set()
    waiting = _with_its_rows(op, flow)
    while waiting:
        tensor = flow.real(waiting.pop())
        key = (id(tensor.graph), tensor.name)
        if key in seen or not _may_have(size, tensor):
            continue
        seen.add(key)
        if any(place.outside is not None and names.is_argument(place.outside) for place in flow.places(tensor)):
            return True
        before = flow.one_back(tensor)
        # Tensors are compared by what they are: == would make an operation.
        is_plain = [id(one) for one in before] == [id(one) for one in tensor.op.inputs]
        waiting += _with_its_rows(tensor.op, flow) if is_plain else before
    return False


def _may_have(size: int, tensor: Tensor) -> bool:
    return tensor.shape.rank is None or (
        tensor.shape.rank > 0 and tf.compat.dimension_value(tensor.shape[0]) in (None, size)
    )


def _with_its_rows(op: Op, flow: Flow) -> list[Tensor]:
    """Return the inputs that the rows of an operation's output may be those of."""
    given: Sequence[Tensor] = op.inputs
    if op.type in _OF_WEIGHTS or (op.type in _REDUCTIONS and _reduces_rows(op, flow)):
        return []
    if op.type == "Transpose":
        order = tf.get_static_value(flow.real(given[1]))
        return list(given[:1]) if order is not None and order[0] == 0 else []
    if op.type == "MatMul":
        return [] if op.get_attr("transpose_a") else list(given[:1])
    if op.type == "GatherV2":
        return list(given[1:2] if op.get_attr("batch_dims") == 0 else given[:2])
    return [tensor for tensor in given if tensor.dtype not in (tf.resource, tf.variant)] + _shapes_of(given, flow)


def _reduces_rows(op: Op, flow: Flow) -> bool:
    axes = tf.get_static_value(flow.real(op.inputs[1]))
    rank = op.inputs[0].shape.rank
    return axes is None or rank is None or any(axis % rank == 0 for axis in axes.reshape(-1))


def _shapes_of(given: Sequence[Tensor], flow: Flow) -> list[Tensor]:
    """Return the tensors whose shapes an operation is given: what is made in the batch's shape has its rows."""
    return [of for tensor in given if (shape := flow.real(tensor).op).type == "Shape" for of in shape.inputs]
