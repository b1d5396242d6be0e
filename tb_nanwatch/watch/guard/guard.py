"""The guard: the update of a bad step is withheld, so that the state before the step is still there to be looked at.

Outside XLA the guard stops the step by failing an assertion before the update runs. Inside XLA nothing can fail, and
in a loop that is not called through ``Watch.step`` nobody could catch it: there an incident turns this and every
later update off until the host has seen it. Where bad steps are skipped, it turns off its own update alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from tb_nanwatch.watch.graphs import Op
from tb_nanwatch.watch.guard.state import Kept, hold_update_back, put_back_if
from tb_nanwatch.watch.record.ring import DeviceRing, Entry
from tb_nanwatch.watch.row.observation import Observation
from tb_nanwatch.watch.row.replicas import ReplicasObservation
from tb_nanwatch.watch.tf_internals import keep_as_one_operation

GuardKind = Literal["stop", "latch", "skip", "none"]
MESSAGE = "tb_nanwatch withheld the update of a step with a non-finite value"


@dataclass(frozen=True, eq=False)
class Guard:
    """Records one step and decides about its update.

    Attributes:
        kind: how a bad step is dealt with: ``"stop"``, ``"latch"`` and ``"skip"`` as above; ``"none"`` lets every
            update through.
        recorder: where rows and incidents are written.
        kept: what the forward pass changed, to be put back when the update is withheld.
        after: whether the optimizer before this one in the step may update; ``None`` if this is the first.
        is_more: whether it is not the first.
        is_whole: whether all that the step is made of was in this run of it, a bool scalar; ``None`` where it is, or
            bad steps are not skipped. If micro-batches of other runs count as well, a skip keeps what this run changed.
        is_clipped: whether the gradients are clipped before they are applied.
        keep_batch: keeps the batch of a bad step for the host, given whether no earlier one waits.
        fill: has the scalars that the update multiplies by looked at in the row, given its operations and whether it is
            in a branch; returns those of its operations that they depend on.
    """

    kind: GuardKind
    recorder: DeviceRing
    kept: Sequence[Kept]
    after: tf.Tensor | None = None
    is_more: bool = False
    is_whole: tf.Tensor | None = None
    is_clipped: bool = False
    keep_batch: Callable[[tf.Tensor], tf.Tensor | None] | None = None
    fill: Callable[[Sequence[Op], bool], Collection[Op]] = lambda *_: ()

    def observe(self, observation: Observation, step: tf.Tensor | None) -> tf.Tensor:
        """Record the step and return whether its update may run.

        Args:
            observation: of the step.
            step: the user's step, int64 scalar, if there is one.

        Returns:
            A bool scalar. With ``"stop"`` it is always true: a bad step does not get that far.
        """
        row = observation.row()
        number = self.recorder.last_row() if self.is_more else self.recorder.next_row()
        entry = Entry(number, row, step, self.is_more)
        settled, passed = rarely(
            tf.reduce_all(tf.math.is_finite(row)),
            lambda: (tf.identity(row), tf.constant(True)),
            lambda: self._look_closer(observation, entry),
            is_spread=isinstance(observation, ReplicasObservation),
        )
        allowed = passed & self.recorder.is_quiet() if self.kind == "latch" else passed
        allowed = allowed if self.after is None else allowed & self.after
        self.recorder.record(entry._replace(row=settled))
        return allowed

    def apply(self, allowed: tf.Tensor, update: Callable[[], Any]) -> Any:
        """Run the update if it may run.

        Args:
            allowed: from :meth:`observe`.
            update: applies the gradients.

        Returns:
            What ``update`` returns, where the guard can pass it on; else ``None``.
        """
        operations = allowed.graph.get_operations if tf.is_symbolic_tensor(allowed) else list
        before = len(operations())
        if self.kind in ("latch", "skip"):
            tf.cond(allowed, lambda: _true_after(update), self._put_back)
            self.fill(operations()[before:], True)
            return None
        result = update()
        own: Sequence[Op] = operations()[before:]
        early = self.fill(own, False)
        if own:
            held = [op for op in own if op not in early]
            hold_update_back(held, until=allowed.op, is_clipped=self.is_clipped)
        return result

    def _look_closer(self, observation: Observation, entry: Entry) -> tuple[tf.Tensor, tf.Tensor]:
        row, counts, is_overflow = observation.resolve()
        bad = ~tf.reduce_all(tf.math.is_finite(row))
        if is_overflow is not None:
            bad &= ~is_overflow
        resolved = entry._replace(row=row)
        return resolved.row, tf.cond(bad, lambda: self._tell(resolved, counts), lambda: tf.constant(True))

    def _tell(self, settled: Entry, counts: tf.Tensor) -> tf.Tensor:
        kept = None if self.keep_batch is None else self.keep_batch(self.recorder.is_quiet())
        with tf.control_dependencies([] if kept is None else [kept]):
            told = self.recorder.report(settled, counts)
        if self.kind == "stop":
            told += self.recorder.record(settled)
            told += [kept.put_back() for kept in self.kept]
            with tf.control_dependencies([op for op in told if op is not None]):
                told = [tf.raw_ops.Assert(condition=tf.constant(False), data=[tf.constant(MESSAGE)])]
        with tf.control_dependencies([op for op in told if op is not None]):
            return tf.constant(False)

    def _put_back(self) -> tf.Tensor:
        if self.is_whole is not None:
            put_back_if(self.is_whole, self.kept)
            return tf.constant(False)
        with tf.control_dependencies([kept.put_back() for kept in self.kept]):
            return tf.constant(False)


def _true_after(update: Callable[[], Any]) -> tf.Tensor:
    update()
    return tf.constant(True)


def rarely(condition: tf.Tensor, usual: Callable[[], Any], rare: Callable[[], Any], *, is_spread: bool = False) -> Any:
    """Branch where one side is hardly ever taken: what that side would read then costs nothing until it is.

    Args:
        condition: bool scalar, true of nearly every step.
        usual: what then is done; its first result is a tensor.
        rare: what is done otherwise.
        is_spread: whether that takes more than one device, which one operation cannot.

    TensorFlow lowers a conditional into a switch for each tensor that a branch uses, here every gradient twice. Kept
    as one operation, it hands them over only when the branch runs.
    """
    outputs = tf.cond(condition, usual, rare)
    first = outputs[0]
    if tf.is_symbolic_tensor(first) and not is_spread:
        op = first.op
        while op.type not in ("If", "StatelessIf"):
            op = op.inputs[0].op
        keep_as_one_operation(op)
    return outputs
