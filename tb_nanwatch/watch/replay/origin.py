"""The origins of non-finite values: which operation to name first, in which order, and their samples of the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import bad_samples
from tb_nanwatch.schema.records import PHASES
from tb_nanwatch.watch.graphs import Op, Tensor
from tb_nanwatch.watch.replay.boundaries import HOLDERS
from tb_nanwatch.watch.replay.execution import Execution
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.phases import Phases
from tb_nanwatch.watch.replay.probe import Node, constant_of
from tb_nanwatch.watch.replay.step_trace import Stage
from tb_nanwatch.watch.replay.walk import Visit, Walk

VARIABLE_PHASES: Final = frozenset({"weights", "state"})
_REDUCTIONS: Final = frozenset({"All", "Any", "ArgMax", "ArgMin", "Max", "Mean", "Min", "Prod", "Sum"})
_SUM_OVER_BATCH: Final = frozenset(
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
"""Operations that sum over the batch, so that the rows of their output are no samples."""


@dataclass(frozen=True, eq=False)
class Origins:
    """Judges the origins that a walk met for one update of the step.

    Attributes:
        phases: the phases of that update's operations.
        walk: the walk.
    """

    phases: Phases
    walk: Walk

    @property
    def names(self) -> Names:
        """The names of the trace."""
        return self.phases.names

    def named_first(self, origin: Visit) -> Visit:
        """Return the visit to name first: the origin, or where an infinity on purpose became NaN."""
        return (self.walk.first_nan(origin) if self._is_on_purpose(origin) else None) or origin

    def order(self, origin: Visit, stage: Stage) -> tuple[int, int, int, int]:
        """Return a sort key: the update, the phase, arguments first, then the order of creation.

        Variables that were non-finite as the step began come before all updates.
        """
        phase = self.phases.phase_of(origin, stage)
        if origin.node is not None:
            return self.phases.update_of(origin), PHASES.index(phase), 1, origin.node.number
        arguments = self.names.trace.inputs.arguments
        place = [*arguments, origin.outside.name].index(origin.outside.name)
        update = -1 if phase in VARIABLE_PHASES else self.phases.update_of(origin)
        return update, PHASES.index(phase), 0, place

    def samples(self, origin: Visit) -> tuple[int, ...]:
        """Return the bad samples of an origin that reached the end of the walk, as far as the walk has gone."""
        if origin.node is None and self.phases.phase_of(origin, "forward") != "input":
            return ()
        if origin.node is not None and origin.execution is not None and origin.node.op.type != "Const":
            own = self.samples_of_output(origin.node, origin.execution)
        elif origin.node is None and self.names.is_argument(origin.outside):
            own = self.names.samples(origin.outside)
        else:
            own = self._samples_of_entry(origin)
        return self.walk.samples_reaching(origin, own, self._batch_size) if own else ()

    def samples_of_output(self, node: Node, execution: Execution) -> tuple[int, ...]:
        """Return the bad samples of an operation's output; none if its rows belong to a weight."""
        size = self._batch_size
        has_samples = execution.leading == size and bool(execution.samples) and are_samples(node.op, size, self.names)
        return execution.samples if has_samples else ()

    def _samples_of_entry(self, origin: Visit) -> tuple[int, ...]:
        """Return the bad samples of a captured tensor or a constant; none if its rows are no samples."""
        size, trace = self._batch_size, self.names.trace
        value = np.asarray(trace.value(origin.outside) if origin.node is None else constant_of(origin.node.op))
        own = bad_samples(value) if value.ndim and len(value) == size else ()
        return own if self.walk.works_by_samples(origin, own, size) else ()

    def _is_on_purpose(self, origin: Visit) -> bool:
        """Return whether an origin is an infinity that the program holds, as a mask does: that is no fault."""
        if origin.node is not None:
            return bool(origin.node.op.type == "Const") and not origin.has_nan
        is_argument = self.names.is_argument(origin.outside)
        is_captured = self.phases.phase_of(origin, "forward") == "input" and not is_argument
        return is_captured and not np.isnan(self.names.trace.value(origin.outside)).any()

    @cached_property
    def _batch_size(self) -> int:
        """The most frequent leading dimension of the arguments; -1 where there is none."""
        sizes = Counter(int(shape[0]) for shape in self.names.trace.inputs.shapes if len(shape))
        return sizes.most_common(1)[0][0] if sizes else -1


def are_samples(op: Op, size: int, names: Names) -> bool:
    """Return whether the rows of an operation's output come from the rows of an argument.

    A gradient of a weight, or the norm of a weight, may have as many rows as the batch has samples. In a loop, the
    rows are not followed: their number decides alone.

    Args:
        op: an operation with ``size`` rows in its output.
        size: the batch size.
        names: the names of the trace.
    """
    flow = names.trace.flow
    if flow.boundaries.is_in_loop(op.graph):
        return True
    seen: set[tuple[int, str]] = set()
    waiting = _inputs_with_rows(op, flow)
    while waiting:
        tensor = flow.original(waiting.pop())
        key = (id(tensor.graph), tensor.name)
        if key in seen or not _may_have_rows(size, tensor):
            continue
        seen.add(key)
        if any(place.outside is not None and names.is_argument(place.outside) for place in flow.places(tensor)):
            return True
        before = flow.one_back(tensor)
        # Tensors are compared by identity: == would create an operation.
        is_inside_graph = [id(given) for given in before] == [id(given) for given in tensor.op.inputs]
        waiting += _inputs_with_rows(tensor.op, flow) if is_inside_graph else before
    return False


def _may_have_rows(size: int, tensor: Tensor) -> bool:
    return tensor.shape.rank is None or (
        tensor.shape.rank > 0 and tf.compat.dimension_value(tensor.shape[0]) in (None, size)
    )


def _inputs_with_rows(op: Op, flow: Flow) -> list[Tensor]:
    """Return the inputs whose rows may be the rows of an operation's output."""
    given: Sequence[Tensor] = op.inputs
    if op.type in _SUM_OVER_BATCH or (op.type in _REDUCTIONS and _reduces_rows(op, flow)):
        return []
    if op.type == "Transpose":
        order = tf.get_static_value(flow.original(given[1]))
        return list(given[:1]) if order is not None and order[0] == 0 else []
    if op.type == "MatMul":
        return [] if op.get_attr("transpose_a") else list(given[:1])
    if op.type == "GatherV2":
        return list(given[1:2] if op.get_attr("batch_dims") == 0 else given[:2])
    return [tensor for tensor in given if tensor.dtype not in HOLDERS] + _measured_tensors(given, flow)


def _reduces_rows(op: Op, flow: Flow) -> bool:
    axes = tf.get_static_value(flow.original(op.inputs[1]))
    rank = op.inputs[0].shape.rank
    return axes is None or rank is None or any(axis % rank == 0 for axis in axes.reshape(-1))


def _measured_tensors(given: Sequence[Tensor], flow: Flow) -> list[Tensor]:
    """Return the tensors whose shapes are among the inputs: what is made in the batch's shape has its rows."""
    shapes = [op for tensor in given if (op := flow.original(tensor).op).type == "Shape"]
    return [measured for op in shapes for measured in op.inputs]
