"""Steps of a model that runs eagerly: there is no graph in which the guard could put anything back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tb_nanwatch.watch.api import Watch
from tb_nanwatch.watch.guard.guard import MESSAGE
from tb_nanwatch.watch.guard.state import KeptVariable, keep_values
from tb_nanwatch.watch.variables import handle_of


class EagerSteps:
    """Runs the eager steps of a model; where an update is left out, what the step changed is put back.

    Attributes:
        has_run: whether there was any.
    """

    def __init__(self, model: Any, optimizers: Sequence[Any], watch: Watch) -> None:
        """Begin before the first.

        Args:
            model: of Keras.
            optimizers: of its training.
            watch: likewise.
        """
        self._model, self._optimizers, self._watch = model, optimizers, watch
        self._bad_batch: Any = None
        self.has_run = False

    def run(self, step: Callable[[Any], Any], data: Any) -> Any:
        """Run a step and return what it returns.

        Args:
            step: of the model.
            data: its batch.
        """
        self.has_run = True
        kept = keep_values(handle_of(variable) for variable in self._state())
        self._watch.eager_step_begins()
        try:
            result = step(data)
        except tf.errors.OpError as error:
            if MESSAGE in str(error):
                self._undo(lambda: self._note_bad(data, kept))
            else:
                self._bad_batch = data
            raise
        self._undo(lambda: self._note_if_bad(data, kept))
        return result

    def _undo(self, undo: Callable[[], None]) -> None:
        self._watch.boundary.attempt("put back what a bad step changed", undo, otherwise=None)

    def take_batch(self) -> Any:
        """Return the batch of the first bad step since this was last asked; ``None`` if there was none."""
        batch, self._bad_batch = self._bad_batch, None
        return batch

    def _note_if_bad(self, data: Any, kept: Sequence[KeptVariable]) -> None:
        if self._watch.is_eager_step_bad():
            self._note_bad(data, kept)

    def _note_bad(self, data: Any, kept: Sequence[KeptVariable]) -> None:
        self._bad_batch = data if self._bad_batch is None else self._bad_batch
        if self._watch.withholds:
            for variable in kept:
                variable.restore()

    def _state(self) -> list[Any]:
        slots = [variable for optimizer in self._optimizers for variable in optimizer.variables]
        found = [*self._model.variables, *self._model.metrics_variables, *slots]
        return list({id(variable): variable for variable in found}.values())
