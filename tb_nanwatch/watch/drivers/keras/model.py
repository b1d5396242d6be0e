"""A model in ``fit``: its ``train_step``, its compiled function and the outputs of its layers, watched."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

import keras
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.drivers.eager import EagerSteps
from tb_nanwatch.watch.drivers.keras.losses import NotedLosses
from tb_nanwatch.watch.drivers.keras.optimizers import Optimizers, Shadow, WatchedOptimizer
from tb_nanwatch.watch.drivers.steps import Steps
from tb_nanwatch.watch.guard.trace import BeginAgain
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.replay import current_trial
from tb_nanwatch.watch.tf_internals import converter_of_optionals, iterations_of, layers_inside

_MOST_PARTS: Final = 3


class WatchedModel:
    """A model that trains through a watch until it is restored."""

    def __init__(self, model: Any, steps: Steps, *, activations_every: int | None = None) -> None:
        """Wrap a compiled model whose ``fit`` is about to begin.

        Args:
            model: of Keras.
            steps: of the watch.
            activations_every: see :class:`~tb_nanwatch.NanWatchCallback`.

        Raises:
            SetupError: if another watch has wrapped it already.
        """
        if isinstance(getattr(vars(model).get("make_train_function"), "__self__", None), WatchedModel):
            raise SetupError("a model must be watched by one NanWatchCallback at a time; fit was given two")
        self._model, self._steps = model, steps
        self._losses = NotedLosses()
        self._is_running = self._has_warned = False
        self._train_step: Callable[[Any], Any] = model.train_step
        self._make_own: Callable[..., Any] = model.make_train_function
        self._optimizers = Optimizers.of(model)
        self._eager = EagerSteps(steps, self._state)
        steps.expect_model(model, microbatches=self._optimizers.microbatches)
        # A function that was traced before is not watched, and the model goes on with it afterwards.
        self._train_function = model.train_function
        self._shadow = Shadow(model, {"make_train_function": self.make_train_function})
        self._wrapped = [WatchedOptimizer(found, self._losses, steps) for found in self._optimizers.watched]
        self._activations = Activations(model, self._losses, steps, every=activations_every)
        self._warn_of_foreign_optimizers()
        self._make()

    def restore(self) -> None:
        """Leave the model as it was; a second time does nothing."""
        if self._shadow.is_lifted:
            return
        for optimizer in self._wrapped:
            optimizer.restore()
        self._activations.restore()
        self._shadow.lift()
        self._model.train_function = self._train_function
        self._warn_if_nothing_was_updated(self._eager.has_run)

    def end(self) -> None:
        """Leave the model as it was. A failure here must not hide how the training ended."""
        self._steps.loop.boundary.attempt("leave the model as it was", self.restore, otherwise=None)

    def make_train_function(self, force: bool = False) -> Any:
        """Make the function that ``fit`` calls when Keras asks for it. In another ``fit``, restore the model."""
        if _is_this_fit_over(self._model):
            # Keras calls no callback when an error ends fit.
            self.restore()
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
                return self._steps.run(lambda: run(iterator), None, self._call_of_bad_step)
            except BeginAgain:
                # The iterator still has the batch: only a trace was given up.
                return self._make()(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                # The data set is at its end: to fit, either error is the end of an epoch, and training goes on.
                raise
            except BaseException:
                # Keras calls no callback when an error ends fit.
                self.end()
                self._steps.loop.close(quietly=True)
                raise
            finally:
                self._is_running = False

        self._model.train_function = train_function
        return train_function

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> Any:
        """Run or trace the model's own step, watched from its beginning to its end."""
        if not self._is_running and current_trial() is None:
            return self._train_step(data)
        with self._losses.listening():
            if tf.executing_eagerly():
                result = self._eager.run(self._train_step, data)
                self._has_warned |= self._losses.has_updated
                return result
            with self._steps.tracing(data):
                result = self._train_step(data)
            self._warn_if_nothing_was_updated(not self._losses.has_updated)
            return result

    def _keeping_batches(self) -> Callable[..., Any]:
        """Keep the batch of a bad step outside of the step that XLA compiles, which has no room for it."""
        convert = converter_of_optionals(self._model)
        if not self._model.jit_compile or self._model.run_eagerly:
            return convert

        def converting(step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            run = convert(step_function)

            def keeping(data: Any) -> Any:
                result = run(data)
                self._steps.keep_batch_after(data)
                return result

            return keeping

        return converting

    def _state(self) -> list[Any]:
        slots = [variable for optimizer in self._optimizers.watched for variable in optimizer.variables]
        found = [*self._model.variables, *self._model.metrics_variables, *slots]
        return list({id(variable): variable for variable in found}.values())

    def _call_of_bad_step(self) -> Call | None:
        batch = self._eager.take_batch() if self._eager.has_run else self._steps.take_batch()
        return None if batch is None else _call_of(self.train_step, batch)

    def _warn_of_foreign_optimizers(self) -> None:
        if self._optimizers.foreign:
            self._has_warned = True
            _warn(f"{', '.join(self._optimizers.foreign)}, which is no optimizer of Keras 3")

    def _warn_if_nothing_was_updated(self, is_so: bool) -> None:
        if not is_so or self._has_warned:
            return
        self._has_warned = True
        names = ", ".join(type(found).__name__ for found in self._optimizers.watched) or "none"
        _warn(
            f"the training of {self._model.name!r}: its train_step gave no gradients to apply or apply_gradients of an"
            f" optimizer that the model holds ({names})"
        )


class Activations:
    """Watches the outputs of a model's layers in its training step until the layers are restored."""

    def __init__(self, model: Any, losses: NotedLosses, steps: Steps, *, every: int | None) -> None:
        """Wrap the layers, except those that only hold other layers.

        Args:
            model: of Keras, with an optimizer.
            losses: knows whether a training step is being run or traced.
            steps: of the watch.
            every: measure once in so many steps of the optimizer; ``None`` for never.
        """
        self._losses, self._steps = losses, steps
        self._every, self._optimizer = every, getattr(model.optimizer, "inner_optimizer", model.optimizer)
        layers = [] if every is None else layers_inside(model)
        measured = [layer for layer in layers if not isinstance(layer, keras.Model | keras.layers.InputLayer)]
        self._shadows = [Shadow(layer, {"call": self._noting(layer)}) for layer in measured]

    def restore(self) -> None:
        """Leave the layers as they were."""
        for shadow in self._shadows:
            shadow.lift()

    def _noting(self, layer: Any) -> Callable[..., Any]:
        call: Callable[..., Any] = layer.call

        @functools.wraps(call)
        def noting(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            if self._losses.is_listening:
                self._note(layer, outputs)
            return outputs

        return noting

    def _note(self, layer: Any, outputs: Any) -> None:
        floating = [value for value in tf.nest.flatten(outputs) if tf.is_tensor(value) and value.dtype.is_floating]
        is_due = tf.equal(tf.math.floormod(iterations_of(self._optimizer).value, self._every), 0)
        for place, value in enumerate(floating):
            self._steps.watch_output(layer, value, place=place, is_due=is_due)


def _warn(what: str) -> None:
    warnings.warn(f"tb_nanwatch does not watch {what}", stacklevel=2)


def _is_this_fit_over(model: Any) -> bool:
    """Return whether the code that asks for a model's function is outside of the ``fit`` that was watched last."""
    caller = sys._getframe(2)
    if caller.f_code.co_name == "fit":
        return True
    frame = caller.f_back
    while frame is not None and not (frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model):
        frame = frame.f_back
    return frame is None


def _call_of(train_step: Callable[[Any], Any], batch: Any) -> Call:
    """Return the call of a step on a batch, whose parts have the names that they have in ``fit``."""
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
