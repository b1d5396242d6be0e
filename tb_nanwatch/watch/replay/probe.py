"""The probe: each operation of a trace reports its inputs and outputs to the host as it runs.

The host keeps an :class:`~tb_nanwatch.watch.replay.execution.Execution` for each run of an operation that was not
finite. Operations whose values stay finite leave nothing.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.replay.creation import Creation
from tb_nanwatch.watch.replay.execution import Execution, execution_of

CONTROL_FLOW: Final = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"})


class ExpiredError(RuntimeError):
    """A replay exceeded its time limit."""


class Node:
    """An operation of a trace that reports.

    Attributes:
        op: the operation as it was created.
        number: its place in the order of creation, which is also an order of data flow.
        creation: who created it.
        executions: each run in which a value was not finite, in order of time.
    """

    def __init__(self, op: Op, number: int, creation: Creation) -> None:
        """Begin with an operation that has not run yet."""
        self.op, self.number, self.creation = op, number, creation
        self.executions: list[Execution] = []

    def last_bad_before(self, moment: float, output: int) -> Execution | None:
        """Return the last execution before a moment in which an output was not finite."""
        return next((found for found in reversed(self.executions) if _is_bad_before(found, moment, output)), None)

    def first_bad_before(self, moment: float, output: int) -> Execution | None:
        """Return the first execution before a moment in which an output was not finite."""
        return next((found for found in self.executions if _is_bad_before(found, moment, output)), None)


class Probe:
    """Adds reports to operations and keeps what they report."""

    def __init__(self, *, time_limit_s: float) -> None:
        """Prepare a probe.

        Args:
            time_limit_s: seconds after which the operations refuse to run and :attr:`is_expired` is true.
        """
        self._deadline_s = time.monotonic() + time_limit_s
        self._nodes: dict[tuple[int, str], Node] = {}
        self._originals: dict[tuple[int, str], Tensor] = {}
        self._clock = itertools.count()
        self._graphs: dict[int, Graph] = {}
        self._is_expired = False

    @property
    def nodes(self) -> Sequence[Node]:
        """Every operation that reports, in order of creation."""
        return list(self._nodes.values())

    @property
    def graphs(self) -> Sequence[Graph]:
        """Every graph with an operation that the probe saw."""
        return list(self._graphs.values())

    @property
    def is_expired(self) -> bool:
        """Whether an operation refused to run because the time was up."""
        return self._is_expired

    def add_graph(self, graph: Graph) -> None:
        """Count a graph among those that the probe saw."""
        self._graphs.setdefault(id(graph), graph)

    def has_seen(self, graph: Graph) -> bool:
        """Return whether the probe saw a graph."""
        return id(graph) in self._graphs

    def add_node(self, op: Op, creation: Creation) -> Node:
        """Count an operation among those that report."""
        node = Node(op, len(self._nodes), creation)
        self._nodes[id(op.graph), op.name] = node
        return node

    def node_of(self, op: Op) -> Node | None:
        """Return the node of an operation; ``None`` if it does not report."""
        return self._nodes.get((id(op.graph), op.name))

    def replace(self, original: Tensor, replacement: Tensor) -> Tensor:
        """Note that the program uses a replacement in the place of a tensor, and return the replacement."""
        self._originals[id(replacement.graph), replacement.op.name] = original
        return replacement

    def is_replacement(self, op: Op) -> bool:
        """Return whether an operation makes the replacement of a tensor."""
        return (id(op.graph), op.name) in self._originals

    def original(self, tensor: Tensor) -> Tensor:
        """Return the tensor that a replacement stands for; any other tensor is returned as it is."""
        while (key := (id(tensor.graph), tensor.op.name)) in self._originals:
            tensor = self._originals[key]
        return tensor

    def report(self, node: Node, inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, is_timed: bool = True) -> Op:
        """Create the operation that reports each run of a node to the host.

        Args:
            node: the operation that reports.
            inputs: its inputs; empty where they are not reported.
            outputs: its outputs.
            is_timed: whether the order of its runs matters, as in a loop.
        """
        given = [place for place, tensor in enumerate(inputs) if _is_number(tensor.dtype)]
        returned = floating_places(outputs)
        report = _Report(weakref.ref(self), node, inputs=given, outputs=returned, is_timed=is_timed)
        tensors = [inputs[place] for place in given] + [outputs[place] for place in returned]
        return tf.numpy_function(report, tensors, [], stateful=True)

    def receive(
        self,
        node: Node,
        inputs: Mapping[int, npt.NDArray[Any]],
        outputs: Mapping[int, npt.NDArray[Any]],
        *,
        is_timed: bool,
    ) -> None:
        """Receive the report of one run of an operation.

        Raises:
            ExpiredError: if the time is up; this ends the replay.
        """
        if time.monotonic() > self._deadline_s:
            self._is_expired = True
            raise ExpiredError
        execution = execution_of(node.op.type, inputs, outputs, moment=next(self._clock) if is_timed else -1)
        if execution is not None:
            node.executions.append(execution)


class _Report:
    """The host's side of a report. TensorFlow keeps it forever, so it holds only weak references."""

    def __init__(
        self, probe: weakref.ref[Probe], node: Node, *, inputs: Sequence[int], outputs: Sequence[int], is_timed: bool
    ) -> None:
        self._probe, self._node = probe, weakref.ref(node)
        self._inputs, self._outputs, self._is_timed = inputs, outputs, is_timed

    def __call__(self, *values: npt.NDArray[Any]) -> list[Any]:
        probe, node = self._probe(), self._node()
        if probe is not None and node is not None:
            arrays = [np.asarray(value) for value in values]
            inputs = dict(zip(self._inputs, arrays[: len(self._inputs)], strict=True))
            outputs = dict(zip(self._outputs, arrays[len(self._inputs) :], strict=True))
            probe.receive(node, inputs, outputs, is_timed=self._is_timed)
        return []


def floating_places(tensors: Sequence[Tensor]) -> list[int]:
    """Return the places of the tensors that can hold NaN."""
    return [place for place, tensor in enumerate(tensors) if is_floating(tensor.dtype)]


def constant_of(op: Op) -> npt.NDArray[Any]:
    """Return the value of a ``Const`` operation."""
    return np.asarray(tf.make_ndarray(op.get_attr("value")))


def is_floating(dtype: tf.DType) -> bool:
    """Return whether a tensor of a dtype can hold NaN."""
    return bool(dtype.is_floating or dtype.is_complex)


def _is_bad_before(execution: Execution, moment: float, output: int) -> bool:
    return execution.moment < moment and output in execution.outputs


def _is_number(dtype: tf.DType) -> bool:
    return bool(is_floating(dtype) or dtype.is_integer)
