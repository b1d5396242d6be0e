"""The probe: every operation of a trial reports to the host what it was given and what it made, as it runs.

It is an operation callback, as TensorFlow's own debugger has: asked at the creation of each operation, in nested
functions, branches and loops too, it puts a look by the host between the operation and whoever reads it. What the
host keeps are the operations that went bad, one :class:`Look` for each time; those that stayed finite leave nothing.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.replay.creation import Creation, creation_now
from tb_nanwatch.watch.replay.labels import TAKES_LABELS, let_labels_pass
from tb_nanwatch.watch.replay.look import Look, look_at
from tb_nanwatch.watch.replay.uses import Use, uses_now
from tb_nanwatch.watch.tf_internals import (
    FuncGraph,
    add_control_input,
    add_operation_callback,
    operation_callbacks,
    remove_operation_callback,
    run_independently,
    set_integer,
    set_string,
    stop_recording,
)
from tb_nanwatch.watch.variables import writes

Op = Any
CONTROL_FLOW: Final = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase"})
_UNPROBED: Final = CONTROL_FLOW | {"Placeholder", "NoOp"}
_ENTRIES: Final = frozenset({"Placeholder", "Const"})
_NOBODYS: Final = Creation()
_DEBUGGERS: Final = frozenset({"DebugIdentityV2", "DebugNumericSummaryV2"})


UNSEEDED: Final = frozenset(
    {
        "RandomUniform",
        "RandomUniformInt",
        "RandomStandardNormal",
        "TruncatedNormal",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoissonV2",
        "RandomShuffle",
        "Multinomial",
    }
)
"""Operations that draw from a generator of their own, whose state cannot be put back."""


class Feeding(Protocol):
    """Gives operations that draw what the step drew."""

    def values_for(self, op: Any) -> Sequence[Any] | None:
        """Return what takes the place of the outputs of a new operation; ``None`` to leave them."""

    def is_right(self, root: Any) -> bool:
        """Return whether each operation was given its own."""

    def kinds_anew(self) -> set[str]:
        """Return the types of the operations that drew random numbers anew."""


class ExpiredError(RuntimeError):
    """A trial ran out of its time."""


class Node:
    """An operation of the trial.

    Attributes:
        op: as it was created.
        number: its place in the order of creation, which is an order of data flow.
        creation: by whom.
        looks: each time it ran and was not finite, in order of time.
    """

    def __init__(self, op: Op, number: int, creation: Creation) -> None:
        """Begin with an operation that has not run yet."""
        self.op, self.number, self.creation = op, number, creation
        self.looks: list[Look] = []

    def bad_before(self, moment: float, output: int) -> Look | None:
        """Return the last look before a moment at which an output was not finite."""
        return next((look for look in reversed(self.looks) if look.moment < moment and output in look.outputs), None)

    def first_bad(self, moment: float, output: int) -> Look | None:
        """Return the first look, before a moment, at which an output was not finite."""
        return next((look for look in self.looks if look.moment < moment and output in look.outputs), None)


class Probe:
    """Instruments the operations that are created while it is attached, and keeps what they report."""

    def __init__(self, *, time_limit_s: float, feed: Feeding, lets_labels_pass: bool = True) -> None:
        """Prepare.

        Args:
            feed: of what the step drew.
            time_limit_s: seconds after which :meth:`expired` is true and the trial's operations refuse to run.
            lets_labels_pass: whether a label out of its range makes NaN, as in a step that XLA compiles, and no error.
        """
        self.feed, self._lets_labels_pass = feed, lets_labels_pass
        self._deadline_s = time.monotonic() + time_limit_s
        self._nodes: dict[tuple[int, str], Node] = {}
        self._mine: dict[tuple[int, str], Any] = {}
        self._drafts: dict[tuple[int, str], Creation] = {}
        self._clock = itertools.count()
        self._others: Sequence[Any] = ()
        self._uses: dict[tuple[int, str], Sequence[Use]] = {}
        self.graphs: dict[int, Any] = {}
        self.expired = False

    @property
    def nodes(self) -> Sequence[Node]:
        """Every operation that was instrumented, in order of creation."""
        return list(self._nodes.values())

    def node_of(self, op: Op) -> Node | None:
        """Return what is known of an operation; ``None`` if it was not instrumented."""
        return self._nodes.get((id(op.graph), op.name))

    def uses(self, op: Op) -> Sequence[Use]:
        """Return what the line used that made a constant."""
        return self._uses.get((id(op.graph), op.name), ())

    def uses_of_captured(self) -> Sequence[Use]:
        """Return what every line used that brought something into one of the graphs: a branch captures it first."""
        return [use for uses in self._uses.values() for use in uses]

    def real(self, tensor: Any) -> Any:
        """Return the tensor itself where the probe put an identity after it."""
        while (key := (id(tensor.graph), tensor.op.name)) in self._mine:
            tensor = self._mine[key]
        return tensor

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Instrument what this thread traces; whoever is called back already, a debugger say, comes first."""
        # TensorFlow would hand on what one callback returns to the next, and a debugger returns nothing.
        self._others = operation_callbacks()
        for other in self._others:
            remove_operation_callback(other)
        add_operation_callback(self._created)
        try:
            yield
        finally:
            remove_operation_callback(self._created)
            for other in self._others:
                add_operation_callback(other)

    def look_at_the_rest(self, graph: Any) -> list[Op]:
        """Instrument what was created past the callback, as ``tf.vectorized_map`` does.

        Args:
            graph: the root graph, in which an operation runs once: its one look needs no time.

        Returns:
            Operations that have to run for their looks to be taken.
        """
        used = self._used_drafts(graph)
        passed = [op for op in graph.get_operations() if _makes_numbers(op) and (op in used or not self._is_known(op))]
        with graph.as_default(), tf.name_scope("nanwatch"):
            return [self._reported(op) for op in passed]

    def _used_drafts(self, graph: Any) -> set[Op]:
        """Return the drafts that are run as they are: of a single row, and what is the same for all rows."""
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
        key = id(op.graph), op.name
        return (
            op.type in _UNPROBED | _DEBUGGERS
            or op.type == "PyFunc"
            or any(key in of for of in (self._nodes, self._mine, self._drafts))
        )

    def _reported(self, op: Op, creation: Creation = _NOBODYS, *, hides_inputs: bool = False) -> Op:
        draft, _, _ = op.name.partition("/pfor/")
        node = Node(op, len(self._nodes), self._drafts.get((id(op.graph), draft), creation))
        self._nodes[id(op.graph), op.name] = node
        told = [place for place, tensor in enumerate(op.inputs) if _is_number(tensor.dtype) and not hides_inputs]
        watched = [place for place, tensor in enumerate(op.outputs) if is_floating(tensor.dtype)]
        report = _Report(weakref.ref(self), node, told=told, watched=watched, is_timed=False)
        given = [op.inputs[place] for place in told] + [op.outputs[place] for place in watched]
        return tf.numpy_function(report, given, [], stateful=True)

    def _created(
        self, op_type: Any, inputs: Any, *attrs_and_outputs: Any, op_name: str | None = None, graph: Any = None
    ) -> Any:
        # The arguments are those that TensorFlow calls it with; the type sometimes comes as bytes.
        *between, outputs = attrs_and_outputs
        for other in self._others:
            replaced = other(op_type, inputs, *between, outputs, op_name=op_name, graph=graph)
            if graph is not None:
                outputs = outputs if replaced is None else replaced
                if not isinstance(graph.outer_graph, FuncGraph):
                    _set_free(outputs)
        kind = op_type.decode() if isinstance(op_type, bytes) else op_type
        # TensorFlow gives no name for what it makes a constant of by itself.
        if graph is None or (op_name is None and not outputs):
            return outputs
        self.graphs.setdefault(id(graph), graph)
        if kind in _ENTRIES and _may_bring_nonfinite(outputs[0]):
            self._uses[id(graph), outputs[0].op.name] = uses_now()
        if kind in _UNPROBED:
            return outputs
        # The name is that which was asked for, not always that which the operation got.
        op = outputs[0].op if outputs else graph.get_operation_by_name(op_name)
        _silence(op)
        outputs = self._drawn(op, outputs)
        watched = [place for place, tensor in enumerate(outputs) if is_floating(tensor.dtype)]
        if not watched and not any(True for _ in writes([op])):
            return outputs
        creation = creation_now()
        if creation.is_draft:
            self._drafts[id(graph), op.name] = creation
            return outputs
        node = Node(op, len(self._nodes), creation)
        self._nodes[id(graph), op.name] = node
        return self._instrumented(node, outputs, watched)

    def _instrumented(self, node: Node, outputs: Any, watched: list[int]) -> list[Any]:
        # The watch may give the operation others.
        inputs = tuple(node.op.inputs)
        told = [place for place, tensor in enumerate(inputs) if _is_number(tensor.dtype)]
        report = _Report(weakref.ref(self), node, told=told, watched=watched)
        # Recorded on no tape: the user's gradients are taken past it.
        with stop_recording(), tf.name_scope("nanwatch"):
            if node.op.type == TAKES_LABELS and self._lets_labels_pass:
                passed = let_labels_pass(node.op, outputs)
                outputs = [self._stand_for(one, output) for one, output in zip(passed, outputs, strict=True)]
            given = [inputs[place] for place in told] + [outputs[place] for place in watched]
            replaced = list(outputs)
            reported = tf.numpy_function(report, given, [], stateful=True)
            run_independently(reported)
            if not watched:
                # What writes a variable has no output that could be waited for.
                add_control_input(node.op, reported)
            with tf.control_dependencies([reported]):
                for place in watched:
                    replaced[place] = self._stand_for(tf.identity(outputs[place]), outputs[place])
        return replaced

    def _stand_for(self, tensor: Any, original: Any) -> Any:
        """Return a tensor that the program is given in the place of another one."""
        self._mine[id(tensor.graph), tensor.op.name] = original
        return tensor

    def _drawn(self, op: Op, outputs: Any) -> Any:
        """Return the outputs of a new operation, or what it drew in the step."""
        values = self.feed.values_for(op)
        if values is None:
            return outputs
        with stop_recording(), tf.name_scope("nanwatch"):
            fed = [tf.identity(value) for value in values]
        # What an operation draws depends on what it was given; an element comes from outside.
        is_random = op.type in UNSEEDED
        pairs = zip(fed, outputs, strict=True)
        return [self._stand_for(one, output if is_random else one.op.inputs[0]) for one, output in pairs]

    def seen(
        self,
        node: Node,
        inputs: Mapping[int, npt.NDArray[Any]],
        outputs: Mapping[int, npt.NDArray[Any]],
        *,
        is_timed: bool = True,
    ) -> None:
        """Take what one run of an operation reports.

        Raises:
            ExpiredError: if the time is up, which ends the trial.
        """
        if time.monotonic() > self._deadline_s:
            self.expired = True
            raise ExpiredError
        look = look_at(node.op.type, inputs, outputs, moment=next(self._clock) if is_timed else -1)
        if look is not None:
            node.looks.append(look)


class _Report:
    """What the host does when an operation has run; TensorFlow keeps it for ever, so it does not keep the probe."""

    def __init__(
        self,
        probe: weakref.ref[Probe],
        node: Node,
        *,
        told: Sequence[int],
        watched: Sequence[int],
        is_timed: bool = True,
    ) -> None:
        self._probe, self._node = probe, weakref.ref(node)
        self._told, self._watched, self._is_timed = told, watched, is_timed

    def __call__(self, *arrays: npt.NDArray[Any]) -> list[Any]:
        probe, node = self._probe(), self._node()
        if probe is not None and node is not None:
            given = [np.asarray(array) for array in arrays]
            inputs = dict(zip(self._told, given[: len(self._told)], strict=True))
            outputs = dict(zip(self._watched, given[len(self._told) :], strict=True))
            probe.seen(node, inputs, outputs, is_timed=self._is_timed)
        return []


def _set_free(outputs: Sequence[Any]) -> None:
    """Put what TensorFlow's debugger has put behind a new operation out of the order of side effects.

    In the root graph, where not all is run, each of them would bring along all prints and debugging before it.
    """
    for tensor in outputs:
        for summary in tensor.consumers():
            for told in summary.outputs:
                for op in told.consumers():
                    run_independently(op)


def _silence(op: Op) -> None:
    # A print may come to run again because something that is needed waits for it, or in a loop that is needed.
    if op.type == "PrintV2":
        set_string(op, "output_stream", f"file://{os.devnull}".encode())
    elif op.type == "Print":
        set_integer(op, "first_n", 0)


def _may_bring_nonfinite(tensor: Any) -> bool:
    if not is_floating(tensor.dtype) or tensor.op.type != "Const":
        return is_floating(tensor.dtype)
    return not bool(np.isfinite(constant_of(tensor.op)).all())


def constant_of(op: Op) -> npt.NDArray[Any]:
    """Return the value of a ``Const`` operation."""
    return np.asarray(tf.make_ndarray(op.get_attr("value")))


def _makes_numbers(op: Op) -> bool:
    return any(is_floating(tensor.dtype) for tensor in op.outputs)


def is_floating(dtype: tf.DType) -> bool:
    """Return whether a tensor of a dtype can hold NaN."""
    return bool(dtype.is_floating or dtype.is_complex)


def _is_number(dtype: tf.DType) -> bool:
    return bool(is_floating(dtype) or dtype.is_integer)
