"""The guard of a step: it records the step and decides whether the update runs.

The update of a bad step is withheld, so that the state before the step stays there to be examined. There are four ways:

- ``"stop"``: an assertion fails before the update and ends the step. Only a caller that expects the error can use it.
- ``"latch"``: a branch leaves out this update and all later ones until the host has read the incident. XLA cannot fail,
  and a compiled loop has no caller that catches an error.
- ``"skip"``: a branch leaves out this update alone.
- ``"none"``: every update runs.

In a session's graph a dead pivot withholds the update: see :mod:`tb_nanwatch.watch.guard.pivot`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import tensorflow as tf

from tb_nanwatch.watch.graphs import Op, rarely
from tb_nanwatch.watch.guard.state import KeptVariable, restore_if
from tb_nanwatch.watch.record.ring import DeviceRing, Entry
from tb_nanwatch.watch.row.observation import Observation
from tb_nanwatch.watch.row.replicas import ReplicasObservation
from tb_nanwatch.watch.tf_internals import add_control_input, is_in_loop
from tb_nanwatch.watch.variables import writes

GuardKind = Literal["stop", "latch", "skip", "none"]
MESSAGE: Final = "tb_nanwatch withheld the update of a step with a non-finite value"


class Guard(Protocol):
    """Records one step and withholds its update if the step is bad."""

    def observe(self, observation: Any, step: tf.Tensor | None) -> tf.Tensor:
        """Record the step and return whether its update may run, a bool scalar.

        Args:
            observation: what was measured of the step.
            step: the user's step, an integer scalar; ``None`` if rows are counted.
        """

    def apply(self, allowed: tf.Tensor, update: Callable[[], Any]) -> Any:
        """Build the update so that it runs only if it may.

        Args:
            allowed: result of :meth:`observe`.
            update: applies the gradients.
        """


@dataclass(frozen=True, eq=False)
class FunctionGuard:
    """The guard of a step of TensorFlow 2: it writes to a ring on the device, and fails or branches.

    Attributes:
        kind: way of withholding an update; see the module.
        ring: ring that takes rows and incidents.
        kept: variables that the forward pass changed.
        after: whether the step's previous optimizer may update, a bool scalar; ``None`` for the first optimizer.
        is_more: whether an optimizer comes before this one in the step.
        is_whole: whether this run contains the whole step, a bool scalar; ``None`` if it always does or the kind is not
            ``"skip"``. If micro-batches of other runs count too, a skip keeps what this run changed.
        is_clipped: whether the gradients are clipped before they are applied.
        keep_batch: keeps the batch of a bad step for the host. It takes whether no earlier incident waits.
        fill: adds the scalars that the update multiplies by to the row. It takes the update's operations and whether
            they are in a branch. It returns the operations that the scalars depend on.
    """

    kind: GuardKind
    ring: DeviceRing
    kept: Sequence[KeptVariable]
    after: tf.Tensor | None = None
    is_more: bool = False
    is_whole: tf.Tensor | None = None
    is_clipped: bool = False
    keep_batch: Callable[[tf.Tensor], tf.Tensor | None] | None = None
    fill: Callable[[Sequence[Op], bool], Collection[Op]] = lambda *_: ()

    def observe(self, observation: Observation, step: tf.Tensor | None) -> tf.Tensor:
        """See :meth:`Guard.observe`. With ``"stop"`` the result is always true: a bad step ends before it."""
        row = observation.row()
        number = self.ring.last_row() if self.is_more else self.ring.next_row()
        entry = Entry(number, row, step, self.is_more)
        exact, passed = rarely(
            tf.reduce_all(tf.math.is_finite(row)),
            lambda: (tf.identity(row), tf.constant(True)),
            lambda: self._examine(observation, entry),
            is_spread=isinstance(observation, ReplicasObservation),
        )
        allowed = passed & self.ring.is_quiet() if self.kind == "latch" else passed
        allowed = allowed if self.after is None else allowed & self.after
        self.ring.record(entry._replace(row=exact))
        return allowed

    def apply(self, allowed: tf.Tensor, update: Callable[[], Any]) -> Any:
        """See :meth:`Guard.apply`. Returns what ``update`` returns; ``None`` if the update is in a branch."""
        operations = allowed.graph.get_operations if tf.is_symbolic_tensor(allowed) else list
        before = len(operations())
        if self.kind in ("latch", "skip"):
            tf.cond(allowed, lambda: _true_after(update), self._restore)
            self.fill(operations()[before:], True)
            return None
        result = update()
        own: Sequence[Op] = operations()[before:]
        early = self.fill(own, False)
        if own:
            later = [op for op in own if op not in early]
            if self.kind == "stop":
                hold_back(later, until=allowed.op)
            if not self.is_clipped:
                hold_arithmetic_back(later, until=allowed.op)
        return result

    def _examine(self, observation: Observation, entry: Entry) -> tuple[tf.Tensor, tf.Tensor]:
        row, counts, _ = observation.resolve()
        exact = entry._replace(row=row)
        bad = ~tf.reduce_all(tf.math.is_finite(row))
        return row, tf.cond(bad, lambda: self._report(exact, counts), lambda: tf.constant(True))

    def _report(self, entry: Entry, counts: tf.Tensor) -> tf.Tensor:
        batch = None if self.keep_batch is None else self.keep_batch(self.ring.is_quiet())
        with tf.control_dependencies([] if batch is None else [batch]):
            reported = self.ring.report(entry, counts)
        if self.kind == "stop":
            reported += self.ring.record(entry)
            reported += [variable.restore() for variable in self.kept]
            with tf.control_dependencies([op for op in reported if op is not None]):
                reported = [tf.raw_ops.Assert(condition=tf.constant(False), data=[tf.constant(MESSAGE)])]
        with tf.control_dependencies([op for op in reported if op is not None]):
            return tf.constant(False)

    def _restore(self) -> tf.Tensor:
        if self.is_whole is not None:
            restore_if(self.is_whole, self.kept)
            return tf.constant(False)
        with tf.control_dependencies([variable.restore() for variable in self.kept]):
            return tf.constant(False)


def hold_back(operations: Sequence[Op], *, until: Op) -> None:
    """Make operations that write variables wait for the guard, so that they do not run in a bad step.

    Args:
        operations: operations that were built after the guard.
        until: operation of the guard.
    """
    for op, _ in writes(operations):
        if not is_in_loop(op):
            add_control_input(op, until)


def hold_arithmetic_back(operations: Sequence[Op], *, until: Op) -> None:
    """Make the first arithmetic of an update on its gradients wait for the guard.

    Beside the backward pass it would slow that down, and its results would leave the processor's cache before the
    update uses them. Arithmetic on clipped gradients must not wait: TensorFlow's graph optimizer could no longer fold
    the factor of the clip into the learning rate, and would read each gradient once more.

    Args:
        operations: operations of the update.
        until: operation of the guard.
    """
    own = {op.name for op in operations}
    for op in operations:
        if op.inputs and not any(tensor.dtype == tf.resource or tensor.op.name in own for tensor in op.inputs):
            add_control_input(op, until)


def _true_after(update: Callable[[], Any]) -> tf.Tensor:
    update()
    return tf.constant(True)
