"""Micro-batches of a session: each is a run of its own, and so is the update after them.

The device keeps nothing of them. A run of a micro-batch returns its row together with the user's fetches, and the host
adds it up. A run of the update is fed the sums, so that its row and its guard are those of any other step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op
from tb_nanwatch.watch.guard.pivot import PivotGuard
from tb_nanwatch.watch.guard.state import SessionState
from tb_nanwatch.watch.record.intake import FedCall, Intake
from tb_nanwatch.watch.row.cells import StepTensors
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import Gradient, dense_values
from tb_nanwatch.watch.row.microbatches import HostMicrobatches, absent_cells
from tb_nanwatch.watch.row.observation import StepObservation


@dataclass(frozen=True, eq=False)
class Microbatches:
    """The part of a graph that measures micro-batches.

    Attributes:
        inputs: the arguments of ``accumulate``.
        guard: of the run of a micro-batch, which also fetches ``guard.fetched``.
        intake: what enters a run in other ways than its feed.
        cells: the placeholder through which the update gets the sums.
        accumulation: keeps the sums on the host.
    """

    inputs: StepInputs
    guard: PivotGuard
    intake: Intake
    cells: tf.Tensor
    accumulation: HostMicrobatches

    @classmethod
    def of(
        cls,
        graph: Graph,
        inputs: StepInputs,
        gradients: Sequence[Gradient],
        *,
        intake_of: Callable[[list[Any]], Intake],
    ) -> Microbatches:
        """Build the operations that measure a micro-batch.

        Args:
            graph: of the step.
            inputs: the arguments of ``accumulate``.
            gradients: by column.
            intake_of: finds what enters a run in other ways than its feed.
        """
        needed = [*_measured(inputs), *([] if inputs.loss is None else [inputs.loss])]
        observation = StepObservation(StepTensors(gradients, None, weights=(), watched=(), loss=inputs.loss))
        state, intake = SessionState.of(graph, needed).by_host(), intake_of(needed)
        # The run of a micro-batch needs its gradients, and none of the operations that the program orders before this.
        with graph.control_dependencies(None):
            guard = PivotGuard(state, extra=intake.packed)
            guard.observe(observation, None)
        absent = absent_cells(len(gradients))
        cells = tf.compat.v1.placeholder_with_default(absent, absent.shape, name="nanwatch/microbatches")
        return cls(inputs, guard, intake, cells, HostMicrobatches(columns=len(gradients)))

    @property
    def feed(self) -> Mapping[Any, Any]:
        """What a run of the update is fed in addition to the user's feed."""
        return {self.cells: self.accumulation.cells()}

    def is_run_by(self, operations: set[Op]) -> bool:
        """Return whether operations compute every gradient of a micro-batch."""
        return all(gradient.op in operations for gradient in _measured(self.inputs))

    def take(self, session: Any, fetched: npt.NDArray[np.float64], call: FedCall, *, puts_back: bool) -> None:
        """Add the result of a micro-batch's run, and restore what its forward pass wrote if it was bad.

        Args:
            session: that ran it.
            fetched: the value of ``guard.fetched``.
            call: the feed of the run.
            puts_back: whether the policy restores state.
        """
        step = self.guard.unpack(fetched, cells=self.accumulation.columns + (self.inputs.loss is not None))
        entered = self.intake.unpacked(step.extra)
        is_finite = self.accumulation.add(
            step.row, step.counts, call=lambda: call.with_entered(entered, self.intake).with_own_arrays()
        )
        if not is_finite and puts_back:
            self.guard.state.restore_unordered(session, step.state)


def _measured(inputs: StepInputs) -> list[tf.Tensor]:
    values = (dense_values(gradient) for gradient, _ in inputs.pairs)
    return [value for value in values if value is not None]
