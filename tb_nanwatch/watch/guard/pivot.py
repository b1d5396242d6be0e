"""The guard of a step that a session of TensorFlow 1 runs: a pivot that is dead in a bad step.

In TensorFlow 1's dataflow a dead operation does not run, and neither do the operations that wait for it. So the update
is built as usual, with its slots. Then every operation of the update that writes a variable waits for the pivot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.graphs import Op, ancestors, rarely
from tb_nanwatch.watch.guard.guard import hold_back
from tb_nanwatch.watch.guard.state import SessionState
from tb_nanwatch.watch.row.measure import parts_of
from tb_nanwatch.watch.row.observation import StepObservation
from tb_nanwatch.watch.variables import key_of


class FetchedStep(NamedTuple):
    """The values that a run of a guarded step brings to the host.

    Attributes:
        step: the user's step; 0 if rows are counted.
        row: float32 ``[cells]``.
        counts: int64 ``[cells, 4]``; ``[0, 4]`` if the first row was finite.
        state: value of :meth:`~tb_nanwatch.watch.guard.state.SessionState.packed`; empty if the first row was finite.
        extra: value of the guard's ``extra``; empty if the first row was finite.
    """

    step: int
    row: npt.NDArray[np.float32]
    counts: IntArray
    state: npt.NDArray[np.float64]
    extra: npt.NDArray[np.float64]


class PivotGuard:
    """The guard of one step in a session's graph; see :class:`~tb_nanwatch.watch.guard.guard.Guard`.

    Attributes:
        state: variables that are restored after a bad step.
        observation: what was measured of the step.
        fetched: vector for the host to fetch with the step, float64; see :meth:`unpack`.
        passed: whether the step was finite, a bool scalar.
    """

    observation: StepObservation
    fetched: tf.Tensor
    passed: tf.Tensor

    def __init__(
        self,
        state: SessionState,
        *,
        extra: Callable[[], tf.Tensor],
        withholds: bool = True,
        trained: Sequence[tf.Tensor] = (),
    ) -> None:
        """Prepare; :meth:`observe` builds the guard.

        Args:
            state: variables that the forward pass writes.
            extra: returns what else comes to the host with a bad step, a float64 vector. It is called in the branch of
                a bad step.
            withholds: whether the update of a bad step is withheld.
            trained: handles of the variables that the update trains.
        """
        self.state = state
        self._extra, self._withholds, self._trained = extra, withholds, trained

    def observe(self, observation: StepObservation, step: tf.Tensor | None) -> tf.Tensor:
        """See :meth:`~tb_nanwatch.watch.guard.guard.Guard.observe`.

        Args:
            observation: what was measured of the step.
            step: the user's step, read before any operation writes it; ``None`` if rows are counted.
        """
        row = observation.row()
        number = tf.zeros([1], tf.float64) if step is None else tf.reshape(tf.cast(step, tf.float64), [1])
        self.observation = observation
        self.fetched, self.passed = rarely(
            tf.reduce_all(tf.math.is_finite(row)),
            lambda: (tf.concat([number, tf.cast(row, tf.float64)], 0), tf.constant(True)),
            lambda: self._examine(observation, number),
        )
        return self.passed

    def apply(self, allowed: tf.Tensor, update: Callable[[], Any]) -> Op:
        """See :meth:`~tb_nanwatch.watch.guard.guard.Guard.apply`.

        Args:
            allowed: result of :meth:`observe`.
            update: applies the gradients, and returns an operation or a tensor.

        Returns:
            The operation that runs the update if the step was finite.
        """
        graph = allowed.graph
        before = len(graph.get_operations())
        result = update()
        built = set(graph.get_operations()[before:])
        # The update also builds the operations that initialize its slots. They do not wait.
        needed = ancestors([result]) & built
        update_ops = [op for op in graph.get_operations()[before:] if op in needed]
        self._add_scalars(update_ops)
        go, stay = _pivots(allowed) if self._withholds else (tf.identity(allowed), None)
        hold_back(update_ops, until=go.op)
        with tf.control_dependencies([result]):
            done = tf.identity(go, name="nanwatch/done")
        if stay is None:
            return _operation_after(done)
        return _operation_after(tf.raw_ops.Merge(inputs=[done, self._restore(stay)]).output)

    def unpack(self, fetched: npt.NDArray[np.float64], *, cells: int) -> FetchedStep:
        """Split the value of :attr:`fetched` into its parts. It is one vector, because each fetch costs time.

        Args:
            fetched: the value; integers below 2**53 are exact in float64.
            cells: number of cells of a row.
        """
        row, rest = fetched[1 : 1 + cells].astype(np.float32), fetched[1 + cells :]
        counts = rest[: 4 * cells].astype(np.int64).reshape(-1, 4)
        end = 4 * cells + self.state.packed_size
        return FetchedStep(int(fetched[0]), row, counts, rest[4 * cells : end], rest[end:])

    def _examine(self, observation: StepObservation, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row, counts, _ = observation.resolve()
        flat = tf.reshape(tf.cast(counts, tf.float64), [-1])
        fetched = tf.concat([number, tf.cast(row, tf.float64), flat, self.state.packed(), self._extra()], 0)
        return fetched, tf.reduce_all(tf.math.is_finite(row))

    def _add_scalars(self, update_ops: Sequence[Op]) -> None:
        step = self.observation.tensors
        if step.scalars is None:
            return
        kept = [*self.state.ordered, *self.state.unordered]
        written = {key_of(handle) for handle in (*self._trained, *(variable.handle for variable in kept))}
        given = (*step.raw, *(step.clipped or ()))
        gradients = [tensor for gradient in given for tensor in parts_of(gradient)]
        step.scalars.fill(update_ops, written, gradients=gradients, is_scaled=step.scale is not None)

    def _restore(self, stay: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([stay.op]):
            assigned = [variable.restore() for variable in self.state.ordered]
        with tf.control_dependencies(assigned):
            return tf.identity(stay, name="nanwatch/withheld")


def _pivots(allowed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a tensor that is dead in a bad step, and one that is dead in a good step."""
    switched = tf.raw_ops.Switch(data=allowed, pred=allowed)
    return tf.identity(switched.output_true, name="nanwatch/go"), tf.identity(switched.output_false)


def _operation_after(tensor: tf.Tensor) -> Op:
    with tf.control_dependencies([tensor.op]):
        return tf.no_op(name="nanwatch/train")
