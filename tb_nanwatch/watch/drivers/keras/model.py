"""The model's side: its ``train_step`` and its compiled function, wrapped while ``fit`` runs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.api import Watch
from tb_nanwatch.watch.drivers.keras.activations import Activations
from tb_nanwatch.watch.drivers.keras.eager import EagerSteps
from tb_nanwatch.watch.drivers.keras.losses import NotedLosses
from tb_nanwatch.watch.drivers.keras.optimizers import Optimizers
from tb_nanwatch.watch.drivers.keras.shadow import Shadow
from tb_nanwatch.watch.drivers.keras.updates import WatchedOptimizer
from tb_nanwatch.watch.guard.trace import BeginAgain
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.replay import current_trial

_MOST_PARTS: Final = 3


class WatchedModel:
    """A model that trains through a watch, until it is put back."""

    def __init__(self, model: Any, watch: Watch, *, activations_every: int | None = None) -> None:
        """Wrap a compiled model whose ``fit`` is about to begin.

        Args:
            model: of Keras.
            watch: of its training.
            activations_every: in how many steps once the outputs of layers are measured; ``None`` for never.

        Raises:
            SetupError: if another watch has wrapped it already.
        """
        if isinstance(getattr(vars(model).get("make_train_function"), "__self__", None), WatchedModel):
            raise SetupError("a model must be watched by one NanWatchCallback at a time; fit was given two")
        self._model, self._watch = model, watch
        self._losses = NotedLosses()
        self._is_running = self._has_told = False
        self._train_step: Callable[[Any], Any] = model.train_step
        self._make_own: Callable[..., Any] = model.make_train_function
        self._optimizers = Optimizers.of(model)
        self._eager = EagerSteps(model, self._optimizers.watched, watch)
        watch.look_first_at(model, microbatches=self._optimizers.microbatches)
        # What was traced before is not watched, and is what the model goes on with afterwards.
        self._train_function = model.train_function
        self._shadow = Shadow(model, {"make_train_function": self.make_train_function})
        self._wrapped = [
            WatchedOptimizer(one, self._losses, prepare=watch.prepare, guarded=watch.guarded)
            for one in self._optimizers.watched
        ]
        self._activations = Activations(model, self._losses, watch, every=activations_every)
        self._tell_of_foreign_optimizers()
        self._make()

    def put_back(self) -> None:
        """Leave the model as it was; a second time does nothing."""
        if self._shadow.is_lifted:
            return
        for optimizer in self._wrapped:
            optimizer.put_back()
        self._activations.put_back()
        self._shadow.lift()
        self._model.train_function = self._train_function
        self._tell_if_nothing_was_updated(self._eager.has_run)

    def end(self) -> None:
        """Leave the model as it was, as far as that goes: what fails here must not hide how the training ended."""
        self._watch.boundary.attempt("leave the model as it was", self.put_back, otherwise=None)

    def make_train_function(self, force: bool = False) -> Any:
        """Make the function that ``fit`` calls, as Keras asks for it; in another ``fit``, leave the model to that."""
        if _is_this_fit_over(self._model):
            # Keras tells no callback of an error that ends fit.
            self.put_back()
            return self._model.make_train_function(force)
        if force or self._model.train_function is None:
            self._make()
        return self._model.train_function

    def _make(self) -> Callable[[Any], Any]:
        """Have Keras make the function that takes an iterator, around the watched step, and catch its bad steps."""
        own = Shadow(self._model, {"train_step": self.train_step, "_autoconvert_optionals": self._keeping_batches()})
        try:
            self._make_own(force=True)
        finally:
            own.lift()
        run = self._model.train_function

        def train_function(iterator: Any) -> Any:
            self._is_running = True
            try:
                return self._watch.run(lambda: run(iterator), self._call_of_bad_step)
            except BeginAgain:
                # The batch is still to be drawn: what was given up is a trace.
                return self._make()(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                # The data set is at its end: fit takes either for the end of an epoch, and goes on with the next.
                raise
            except BaseException:
                # Keras tells no callback of an error that ends fit.
                self.end()
                self._watch.__exit__(*sys.exc_info())
                raise
            finally:
                self._is_running = False

        self._model.train_function = train_function
        return train_function

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> Any:
        """Run or trace the model's own step, seen from its beginning to its end."""
        if not self._is_running and current_trial() is None:
            return self._train_step(data)
        with self._losses.listening():
            if tf.executing_eagerly():
                result = self._eager.run(self._train_step, data)
                self._has_told |= self._losses.has_updated
                return result
            with self._watch.tracing(data):
                result = self._train_step(data)
            self._tell_if_nothing_was_updated(not self._losses.has_updated)
            return result

    def _keeping_batches(self) -> Callable[..., Any]:
        """Keep the batch of a bad step that XLA compiles around the step: in there, there is no room for it."""
        convert: Callable[[Any], Callable[..., Any]] = self._model._autoconvert_optionals
        if not self._model.jit_compile or self._model.run_eagerly:
            return convert

        def converting(step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            run = convert(step_function)

            def keeping(data: Any) -> Any:
                result = run(data)
                self._watch.keep_batch_after(data)
                return result

            return keeping

        return converting

    def _call_of_bad_step(self) -> Call | None:
        batch = self._eager.take_batch() if self._eager.has_run else self._watch.take_batch()
        return None if batch is None else _call_of(self.train_step, batch)

    def _tell_of_foreign_optimizers(self) -> None:
        if self._optimizers.foreign:
            self._has_told = True
            _warn(f"{', '.join(self._optimizers.foreign)}, which is no optimizer of Keras 3")

    def _tell_if_nothing_was_updated(self, is_so: bool) -> None:
        if not is_so or self._has_told:
            return
        self._has_told = True
        names = ", ".join(type(one).__name__ for one in self._optimizers.watched) or "none"
        _warn(
            f"the training of {self._model.name!r}: its train_step gave no gradients to apply or apply_gradients of an"
            f" optimizer that the model holds ({names})"
        )


def _warn(what: str) -> None:
    warnings.warn(f"tb_nanwatch does not watch {what}", stacklevel=2)


def _is_this_fit_over(model: Any) -> bool:
    """Return whether who asks for a model's function is not, or not in, the ``fit`` that was watched last."""
    asks = sys._getframe(2)
    if asks.f_code.co_name == "fit":
        return True
    frame = asks.f_back
    while frame is not None and not (frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model):
        frame = frame.f_back
    return frame is None


def _call_of(train_step: Callable[[Any], Any], batch: Any) -> Call:
    """Return the call of a step on a batch, its parts under the names that they have in ``fit``."""
    if not isinstance(batch, tuple):
        return Call(_named_x(train_step), (batch,), {}, is_converted=False)
    if len(batch) > _MOST_PARTS:
        return Call(lambda *parts: train_step(parts), batch, {}, is_converted=False)

    def step(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        return train_step((x, y, sample_weight)[: len(batch)])

    return Call(step, batch, {}, is_converted=False)


def _named_x(train_step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        return train_step(x)

    return step
