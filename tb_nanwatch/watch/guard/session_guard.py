"""The guard of a step that a session runs: whatever its update writes runs only if the step was finite.

A dead operation of TensorFlow 1's dataflow does not run, and neither does what waits for it. So the update is built as
it always is, slots and all, and then everything in it that writes a variable is made to wait for a pivot that is dead
in a bad step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.drivers.session_v1.intake import Intake
from tb_nanwatch.watch.graphs import Op, ancestors, is_in_loop
from tb_nanwatch.watch.guard.session_state import KeptState
from tb_nanwatch.watch.row.measure import parts_of
from tb_nanwatch.watch.row.observation import StepObservation
from tb_nanwatch.watch.tf_internals import conditional, keep_as_one_operation
from tb_nanwatch.watch.variables import key_of, variable_writes


class Seen(NamedTuple):
    """What a run of a step tells the host.

    Attributes:
        step: the user's; 0 where rows are counted.
        row: float32 ``[cells]``.
        counts: int64 ``[cells, 4]``; ``[0, 4]`` of a row that was finite at once.
        kept: of such a row nothing; else what :meth:`KeptState.beside_flat` gives.
        intake: likewise, what :meth:`~tb_nanwatch.watch.drivers.session_v1.intake.Intake.packed` gives.
    """

    step: int
    row: npt.NDArray[np.float32]
    counts: IntArray
    kept: npt.NDArray[np.float64]
    intake: npt.NDArray[np.float64]

    @classmethod
    def unpacked(cls, told: npt.NDArray[np.float64], *, cells: int, kept: int) -> Seen:
        """Take apart what was fetched: one vector, because each fetch has its price.

        Args:
            told: float64, one after the other; integers below 2**53 are exact.
            cells: of a row.
            kept: elements of what is kept of a bad step.
        """
        row, rest = told[1 : 1 + cells].astype(np.float32), told[1 + cells :]
        counts = rest[: 4 * cells].astype(np.int64).reshape(-1, 4)
        after = 4 * cells + kept
        return cls(int(told[0]), row, counts, rest[4 * cells : after], rest[after:])


@dataclass(frozen=True, eq=False)
class Guard:
    """One step's guard.

    Attributes:
        told: for the host to fetch with the step, see :meth:`Seen.unpacked`; float64 vector.
        passed: whether the step was finite, bool scalar.
        state: what is put back if it was not.
        intake: what comes to the host if it was not.
        observation: of the step.
        trained: the sources of the variables that the update trains.
    """

    told: tf.Tensor
    passed: tf.Tensor
    state: KeptState
    intake: Intake
    observation: StepObservation
    trained: Sequence[tf.Tensor] = ()

    @classmethod
    def of(
        cls,
        observation: StepObservation,
        *,
        step: tf.Tensor | None,
        state: KeptState,
        intake: Intake,
        trained: Sequence[tf.Tensor] = (),
    ) -> Guard:
        """Look at a step.

        Args:
            observation: of the step.
            step: the user's, integer scalar, read before anything writes it.
            state: what the forward pass writes.
            intake: what enters the step besides its feed.
            trained: the sources of the variables that the update trains.
        """
        row = observation.row()
        number = tf.zeros([1], tf.float64) if step is None else tf.reshape(tf.cast(step, tf.float64), [1])
        told, passed = _rarely(
            tf.reduce_all(tf.math.is_finite(row)),
            lambda: (tf.concat([number, tf.cast(row, tf.float64)], 0), tf.constant(True)),
            lambda: _look_closer(observation, state, intake, number=number),
        )
        return cls(told, passed, state, intake, observation, trained)

    def seen(self, told: npt.NDArray[np.float64], *, cells: int) -> Seen:
        """Take apart what was fetched.

        Args:
            told: the value of the attribute of this name.
            cells: of a row.
        """
        return Seen.unpacked(told, cells=cells, kept=self.state.beside_size)

    def apply(self, update: Callable[[], Any], *, withholds: bool) -> Op:
        """Build the update, and return the operation that runs it if the step was finite.

        Args:
            update: applies the gradients, and returns an operation or a tensor.
            withholds: whether the policy holds back the update of a bad step.
        """
        graph = self.passed.graph
        before = len(graph.get_operations())
        result = update()
        built = set(graph.get_operations()[before:])
        # What assigns a new slot its first value is built here too, and nothing waits for that.
        needed = ancestors([result]) & built
        update_ops = [op for op in graph.get_operations()[before:] if op in needed]
        self._look_at_scalars(update_ops)
        go, stay = self._pivots() if withholds else (tf.identity(self.passed), None)
        for op, _ in variable_writes(update_ops):
            if not is_in_loop(op):
                op._add_control_input(go.op)
        with tf.control_dependencies([result]):
            done = tf.identity(go, name="nanwatch/done")
        if stay is None:
            return _nothing_but(done)
        return _nothing_but(tf.raw_ops.Merge(inputs=[done, self._put_back(stay)]).output)

    def _look_at_scalars(self, update_ops: Sequence[Op]) -> None:
        seen = self.observation.tensors
        if seen.scalars is None:
            return
        kept = [*self.state.before, *self.state.beside]
        written = {key_of(source) for source in (*self.trained, *(one.source for one in kept))}
        gradients = [tensor for one in (*seen.raw, *(seen.clipped or ())) for tensor in parts_of(one)]
        is_scaled = seen.scale is not None
        seen.scalars.fill(update_ops, written, gradients=gradients, is_scaled=is_scaled)

    def _pivots(self) -> tuple[tf.Tensor, tf.Tensor]:
        switched = tf.raw_ops.Switch(data=self.passed, pred=self.passed)
        return tf.identity(switched.output_true, name="nanwatch/go"), tf.identity(switched.output_false)

    def _put_back(self, stay: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([stay.op]):
            assigned = [kept.put_back() for kept in self.state.before]
        with tf.control_dependencies(assigned):
            return tf.identity(stay, name="nanwatch/withheld")


def _look_closer(
    observation: StepObservation, state: KeptState, intake: Intake, *, number: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    row, counts, _ = observation.resolve()
    flat = tf.reshape(tf.cast(counts, tf.float64), [-1])
    told = tf.concat([number, tf.cast(row, tf.float64), flat, state.beside_flat(), intake.packed()], 0)
    return told, tf.reduce_all(tf.math.is_finite(row))


def _nothing_but(tensor: tf.Tensor) -> Op:
    with tf.control_dependencies([tensor.op]):
        return tf.no_op(name="nanwatch/train")


def _rarely(condition: tf.Tensor, usual: Callable[[], Any], rare: Callable[[], Any]) -> Sequence[tf.Tensor]:
    """Branch where one side is hardly ever taken, kept as one operation whichever conditionals the graph has."""
    outputs: Sequence[tf.Tensor] = conditional(condition, usual, rare, name="nanwatch/look")
    op = outputs[0].op
    while op.type not in ("If", "StatelessIf"):
        op = op.inputs[0].op
    keep_as_one_operation(op)
    return outputs
