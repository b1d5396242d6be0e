"""The operation callback that instruments a step while TensorFlow traces it.

TensorFlow calls it at the creation of each operation, in nested functions, branches and loops too, as it calls its own
debugger. The callback puts a report of the probe between the operation and whatever reads its outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.record.draws import UNSEEDED, DrawFeed
from tb_nanwatch.watch.replay.creation import Creation, Use, creation_now, uses_now
from tb_nanwatch.watch.replay.probe import CONTROL_FLOW, Node, Probe, constant_of, floating_places, is_floating
from tb_nanwatch.watch.tf_internals import (
    FuncGraph,
    add_control_input,
    add_operation_callback,
    operation_callbacks,
    remove_operation_callback,
    run_independently,
    set_input,
    set_integer,
    set_string,
    stop_recording,
)
from tb_nanwatch.watch.variables import writes

_NO_REPORT: Final = CONTROL_FLOW | {"Placeholder", "NoOp"}
_ENTRIES: Final = frozenset({"Placeholder", "Const"})
_UNKNOWN_CREATION: Final = Creation()
_DEBUGGERS: Final = frozenset({"DebugIdentityV2", "DebugNumericSummaryV2"})
_TAKES_LABELS: Final = "SparseSoftmaxCrossEntropyWithLogits"


class Instrument:
    """Instruments each operation that is created while it is attached."""

    def __init__(self, probe: Probe, feed: DrawFeed, *, lets_labels_pass: bool = True) -> None:
        """Prepare.

        Args:
            probe: receives the reports.
            feed: what the step drew; the operations that draw get it again.
            lets_labels_pass: whether a label out of range gives NaN, as in a step that XLA compiles, and not an error.
        """
        self.probe, self.feed, self._lets_labels_pass = probe, feed, lets_labels_pass
        self._drafts: dict[tuple[int, str], Creation] = {}
        self._other_callbacks: Sequence[Any] = ()
        self._uses: dict[tuple[int, str], Sequence[Use]] = {}

    def uses(self, op: Op) -> Sequence[Use]:
        """Return the named values that the line used which made a constant."""
        return self._uses.get((id(op.graph), op.name), ())

    def uses_of_captured(self) -> Sequence[Use]:
        """Return the named values of all lines that brought a value into one of the graphs.

        A branch captures a value before the graph around it does, so the line is not that of a single graph.
        """
        return [use for uses in self._uses.values() for use in uses]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Instrument what this thread traces. Callbacks that are registered already, as a debugger's, run first."""
        # TensorFlow would pass the result of one callback to the next, and a debugger's callback returns nothing.
        self._other_callbacks = operation_callbacks()
        for other in self._other_callbacks:
            remove_operation_callback(other)
        add_operation_callback(self._created)
        try:
            yield
        finally:
            remove_operation_callback(self._created)
            for other in self._other_callbacks:
                add_operation_callback(other)

    def instrument_the_rest(self, graph: Graph) -> list[Op]:
        """Add reports to operations that were created without the callback, as ``tf.vectorized_map`` creates them.

        Args:
            graph: the root graph. An operation runs once in it, so its execution needs no time.

        Returns:
            The reports; they have to run.
        """
        used = self._used_drafts(graph)
        rest = [op for op in graph.get_operations() if _has_numbers(op) and (op in used or not self._is_known(op))]
        with graph.as_default(), tf.name_scope("nanwatch"):
            return [self._report_of(op) for op in rest]

    def _used_drafts(self, graph: Graph) -> set[Op]:
        """Return the drafts that run as they are: for a single row, and for values that all rows share."""
        drafts = [op for op in graph.get_operations() if self._is_draft(op)]
        waiting = [
            op for op in drafts if any(not self._is_draft(user) for out in op.outputs for user in out.consumers())
        ]
        used: set[Op] = set()
        while waiting:
            op = waiting.pop()
            if op not in used:
                used.add(op)
                waiting += [tensor.op for tensor in op.inputs if self._is_draft(tensor.op)]
        return used

    def _is_draft(self, op: Op) -> bool:
        return (id(op.graph), op.name) in self._drafts

    def _is_known(self, op: Op) -> bool:
        return (
            op.type in _NO_REPORT | _DEBUGGERS
            or op.type == "PyFunc"
            or self.probe.node_of(op) is not None
            or self.probe.is_replacement(op)
            or self._is_draft(op)
        )

    def _report_of(self, op: Op) -> Op:
        draft, _, _ = op.name.partition("/pfor/")
        node = self.probe.add_node(op, self._drafts.get((id(op.graph), draft), _UNKNOWN_CREATION))
        return self.probe.report(node, op.inputs, op.outputs, is_timed=False)

    def _created(
        self, op_type: Any, inputs: Any, *attrs_and_outputs: Any, op_name: str | None = None, graph: Any = None
    ) -> Any:
        # TensorFlow fixes these arguments. The type sometimes comes as bytes.
        *between, outputs = attrs_and_outputs
        for other in self._other_callbacks:
            replaced = other(op_type, inputs, *between, outputs, op_name=op_name, graph=graph)
            if graph is not None:
                outputs = outputs if replaced is None else replaced
                if not isinstance(graph.outer_graph, FuncGraph):
                    _free_debugger(outputs)
        kind = op_type.decode() if isinstance(op_type, bytes) else op_type
        # TensorFlow passes no name for a constant that it creates by itself.
        if graph is None or (op_name is None and not outputs):
            return outputs
        self.probe.add_graph(graph)
        if kind in _ENTRIES and _may_be_nonfinite(outputs[0]):
            self._uses[id(graph), outputs[0].op.name] = uses_now()
        if kind in _NO_REPORT:
            return outputs
        # The name is the requested one. The operation may have got another.
        op = outputs[0].op if outputs else graph.get_operation_by_name(op_name)
        _silence(op)
        outputs = self._with_draws(op, outputs)
        if not floating_places(outputs) and not any(True for _ in writes([op])):
            return outputs
        creation = creation_now()
        if creation.is_draft:
            self._drafts[id(graph), op.name] = creation
            return outputs
        return self._instrumented(self.probe.add_node(op, creation), outputs)

    def _instrumented(self, node: Node, outputs: Any) -> list[Any]:
        # A label that passes replaces an input, and the report is to show the original.
        inputs = tuple(node.op.inputs)
        # No tape records this, so the user's gradients do not pass through it.
        with stop_recording(), tf.name_scope("nanwatch"):
            if node.op.type == _TAKES_LABELS and self._lets_labels_pass:
                passed = _let_labels_pass(node.op, outputs)
                outputs = [self.probe.replace(old, new) for old, new in zip(outputs, passed, strict=True)]
            replaced = list(outputs)
            report = self.probe.report(node, inputs, outputs)
            # In program order, each report would wait for the one before, and for all that the user prints or writes.
            run_independently(report)
            places = floating_places(outputs)
            if not places:
                # An operation that writes a variable has no output that another operation could wait for.
                add_control_input(node.op, report)
            with tf.control_dependencies([report]):
                for place in places:
                    replaced[place] = self.probe.replace(outputs[place], tf.identity(outputs[place]))
        return replaced

    def _with_draws(self, op: Op, outputs: Any) -> Any:
        """Return the outputs of a new operation, or what the same operation drew in the step."""
        values = self.feed.values_for(op)
        if values is None:
            return outputs
        with stop_recording(), tf.name_scope("nanwatch"):
            fed = [tf.identity(value) for value in values]
        # Random numbers depend on the operation's inputs. An element comes from outside the step.
        is_random = op.type in UNSEEDED
        pairs = zip(outputs, fed, strict=True)
        return [self.probe.replace(old if is_random else new.op.inputs[0], new) for old, new in pairs]


def _let_labels_pass(op: Any, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Make a cross-entropy return NaN for a label out of range, as it does under XLA and on a GPU.

    On a CPU such a label ends the step with an error, and a replay always runs outside XLA.

    Args:
        op: a new ``SparseSoftmaxCrossEntropyWithLogits``.
        outputs: its outputs: a loss for each sample, ``[B]``, and the gradient of the logits, ``[B, C]``.

    Returns:
        The replacements of the outputs. The first input of each is the output itself.
    """
    logits, labels = op.inputs
    is_outside = (labels < 0) | (labels >= tf.shape(logits, labels.dtype)[-1])
    set_input(op, 1, tf.where(is_outside, tf.zeros_like(labels), labels))
    loss, slope = outputs
    nan = tf.constant(float("nan"), loss.dtype)
    extra = tf.where(is_outside, nan, tf.zeros_like(nan))
    return [tf.raw_ops.AddV2(x=loss, y=extra), tf.raw_ops.AddV2(x=slope, y=extra[:, None])]


def _free_debugger(outputs: Sequence[Any]) -> None:
    """Take the operations that TensorFlow's debugger put behind a new operation out of the order of side effects.

    Only part of the root graph runs. Each of these operations would otherwise bring along all prints and debugging
    before it.
    """
    for tensor in outputs:
        for summary in tensor.consumers():
            for summarised in summary.outputs:
                for op in summarised.consumers():
                    run_independently(op)


def _silence(op: Op) -> None:
    # A print can run again if a needed operation waits for it, or if it is in a needed loop.
    if op.type == "PrintV2":
        set_string(op, "output_stream", f"file://{os.devnull}".encode())
    elif op.type == "Print":
        set_integer(op, "first_n", 0)


def _may_be_nonfinite(tensor: Tensor) -> bool:
    if not is_floating(tensor.dtype) or tensor.op.type != "Const":
        return is_floating(tensor.dtype)
    return not bool(np.isfinite(constant_of(tensor.op)).all())


def _has_numbers(op: Op) -> bool:
    return bool(floating_places(op.outputs))
