"""Eager steps of another loop, such as ``model.fit``: no graph holds a guard that could restore what they change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from tb_nanwatch.watch.drivers.steps import Steps
from tb_nanwatch.watch.guard.guard import MESSAGE
from tb_nanwatch.watch.guard.state import KeptVariable, keep_values
from tb_nanwatch.watch.variables import handles_here


class EagerSteps:
    """Runs eager steps, and restores what a step changed where its update is left out.

    Attributes:
        has_run: whether any step ran.
    """

    def __init__(self, steps: Steps, state_of: Callable[[], Iterable[Any]]) -> None:
        """Begin before the first step.

        Args:
            steps: of the watch.
            state_of: returns the variables that a step may change.
        """
        self._steps, self._state_of = steps, state_of
        self._bad_batch: Any = None
        self.has_run = False

    def run(self, step: Callable[[Any], Any], batch: Any) -> Any:
        """Run a step and return its result.

        Args:
            step: takes a batch.
            batch: the step's only argument.
        """
        self.has_run = True
        kept = keep_values(handle for variable in self._state_of() for handle in handles_here(variable))
        self._steps.begin_eager()
        try:
            result = step(batch)
        except tf.errors.OpError as error:
            if MESSAGE in str(error):
                self._undo(lambda: self._note_bad(batch, kept))
            else:
                self._bad_batch = batch
            raise
        self._undo(lambda: self._note_if_bad(batch, kept))
        return result

    def take_batch(self) -> Any:
        """Return the batch of the first bad step since the last call; ``None`` if there was none."""
        batch, self._bad_batch = self._bad_batch, None
        return batch

    def _undo(self, undo: Callable[[], None]) -> None:
        self._steps.loop.boundary.attempt("put back what a bad step changed", undo, otherwise=None)

    def _note_if_bad(self, batch: Any, kept: Sequence[KeptVariable]) -> None:
        if self._steps.is_eager_step_bad():
            self._note_bad(batch, kept)

    def _note_bad(self, batch: Any, kept: Sequence[KeptVariable]) -> None:
        self._bad_batch = batch if self._bad_batch is None else self._bad_batch
        if self._steps.withholds:
            for variable in kept:
                variable.restore()
