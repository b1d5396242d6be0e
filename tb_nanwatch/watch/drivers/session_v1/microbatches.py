"""Micro-batches of a session: each is a run of its own, and so is the update that comes after them.

Nothing of them is on the device. A run of a micro-batch brings its measure to the host with what the user fetches; a
run of the update is fed what the host has added up, so that its row and its guard are those of any other step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.schema.records import IntArray
from tb_nanwatch.watch.drivers.session_v1.feeds import FedCall
from tb_nanwatch.watch.drivers.session_v1.intake import Intake
from tb_nanwatch.watch.graphs import Graph, Op
from tb_nanwatch.watch.guard.pivot import FetchedStep, PivotGuard
from tb_nanwatch.watch.guard.state import SessionState
from tb_nanwatch.watch.row.cells import StepTensors
from tb_nanwatch.watch.row.encoding import ABSENT, half_squares
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import Gradient, dense_values
from tb_nanwatch.watch.row.microbatches import NONE_BAD
from tb_nanwatch.watch.row.observation import StepObservation


class HostAccumulation:
    """The micro-batches since the last update: how many, how large, and which was the first that was bad.

    Attributes:
        columns: how many variables are watched.
        bad_call: what the first bad one was fed; ``None`` where all were finite.
    """

    def __init__(self, *, columns: int) -> None:
        """Begin with none.

        Args:
            columns: how many variables are watched.
        """
        self.columns = columns
        self._counts = np.zeros((columns + 1, 4), np.int64)
        self._halves = np.zeros(columns)
        self._number, self._bad, self._is_over = 0, NONE_BAD, False
        self.bad_call: FedCall | None = None

    @property
    def number(self) -> int:
        """How many there were; after an update, none."""
        return 0 if self._is_over else self._number

    def add(self, seen: FetchedStep, call: FedCall) -> bool:
        """Take what a run of a micro-batch told.

        Args:
            seen: of its gradients by column, and of its loss if it has one.
            call: what it was fed.

        Returns:
            Whether it was finite.
        """
        if self._is_over:
            self._halves[:] = 0.0
            self._number, self._bad, self._is_over, self.bad_call = 0, NONE_BAD, False, None
        is_finite = bool(np.isfinite(seen.row).all())
        if not is_finite and self._bad == NONE_BAD:
            self._bad, self.bad_call = self._number, call.copied()
            self._counts[:] = 0
            self._counts[: len(seen.counts)] = seen.counts
        self._halves += half_squares(seen.row[: self.columns])
        self._number += 1
        return is_finite

    def cells(self) -> npt.NDArray[np.float32]:
        """Return the cells of the step, as :meth:`tb_nanwatch.watch.row.microbatches.Accumulation.cells` does."""
        if self.number == 0:
            return _no_cells(self.columns)
        means = self._halves / self._number
        kept = np.where(means <= np.finfo(np.float32).max, means, ABSENT)
        mark = 0.0 if self._bad == NONE_BAD else np.nan
        return np.array([*kept, self._number, self._bad, mark], np.float32)

    def end(self) -> None:
        """Know that the update ran: the next micro-batch begins anew."""
        self._is_over = True

    def pending(self) -> int:
        """Return the number of the first bad micro-batch whose update has not come; ``NONE_BAD`` if all are finite."""
        return NONE_BAD if self._is_over else self._bad

    def counts(self) -> IntArray:
        """Return the exact counts of the first bad micro-batch: a row for each gradient, and the loss's."""
        return self._counts


@dataclass(frozen=True, eq=False)
class Microbatches:
    """What measures the micro-batches of a graph.

    Attributes:
        inputs: what ``accumulate`` was given.
        guard: of a run of one; ``fetched`` is fetched with it.
        intake: what enters a run besides its feed.
        cells: what the update is fed, a placeholder.
        accumulation: of the host.
    """

    inputs: StepInputs
    guard: PivotGuard
    intake: Intake
    cells: tf.Tensor
    accumulation: HostAccumulation

    @classmethod
    def of(
        cls,
        graph: Graph,
        inputs: StepInputs,
        gradients: Sequence[Gradient],
        *,
        intake_of: Callable[[list[Any]], Intake],
    ) -> Microbatches:
        """Build what measures a micro-batch.

        Args:
            graph: of the step.
            inputs: what ``accumulate`` was given.
            gradients: by column.
            intake_of: finds what enters a run besides its feed.
        """
        needed = [*_measured(inputs), *([] if inputs.loss is None else [inputs.loss])]
        observation = StepObservation(StepTensors(gradients, None, weights=(), watched=(), loss=inputs.loss))
        state, intake = SessionState.of(graph, needed).by_host(), intake_of(needed)
        # A run of a micro-batch takes its gradients, and nothing else that the program makes wait here.
        with graph.control_dependencies(None):
            guard = PivotGuard(state, extra=intake.packed)
            guard.observe(observation, None)
        none = _no_cells(len(gradients))
        cells = tf.compat.v1.placeholder_with_default(none, none.shape, name="nanwatch/microbatches")
        return cls(inputs, guard, intake, cells, HostAccumulation(columns=len(gradients)))

    @property
    def feed(self) -> Mapping[Any, Any]:
        """What a run of the update is fed besides."""
        return {self.cells: self.accumulation.cells()}

    def is_run_by(self, operations: set[Op]) -> bool:
        """Return whether some operations take every gradient of a micro-batch."""
        return all(gradient.op in operations for gradient in _measured(self.inputs))

    def take(self, session: Any, told: npt.NDArray[np.float64], call: FedCall, *, puts_back: bool) -> None:
        """Take what a run of a micro-batch brought.

        Args:
            session: that ran it.
            told: the value of ``guard.fetched``.
            call: what it was fed.
            puts_back: whether what the forward pass of a bad one wrote is put back.
        """
        seen = self.guard.unpack(told, cells=self.accumulation.columns + (self.inputs.loss is not None))
        entered = self.intake.unpacked(seen.extra)
        if not self.accumulation.add(seen, call.entered(entered, self.intake)) and puts_back:
            self.guard.state.restore_unordered(session, seen.state)


def _measured(inputs: StepInputs) -> list[tf.Tensor]:
    values = (dense_values(gradient) for gradient, _ in inputs.pairs)
    return [value for value in values if value is not None]


def _no_cells(columns: int) -> npt.NDArray[np.float32]:
    return np.array([*[ABSENT] * columns, 0, NONE_BAD, 0], np.float32)
