"""The model's side: its ``train_step``, its loss and its compiled function, wrapped while it trains."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tb_nanwatch.watch.batch import Call
from tb_nanwatch.watch.fit.losses import NotedLosses
from tb_nanwatch.watch.fit.updates import WatchedOptimizer
from tb_nanwatch.watch.watch import Watch

_WRAPPED = ("train_step", "compute_loss", "make_train_function", "_autoconvert_optionals")


class WatchedModel:
    """A model that trains through a watch, until it is put back."""

    def __init__(self, model: Any, watch: Watch) -> None:
        """Wrap a compiled model.

        Args:
            model: of Keras.
            watch: of its training.
        """
        self._model, self._watch = model, watch
        self._losses = NotedLosses()
        self._eager_batch: Any = None
        self._train_step: Callable[[Any], Any] = model.train_step
        self._compute_loss: Callable[..., Any] = model.compute_loss
        self._make_train_function: Callable[..., Any] = model.make_train_function
        self._convert_optionals: Callable[..., Any] = model._autoconvert_optionals
        watch.look_first_at(model.trainable_variables, microbatches=_microbatches(model.optimizer))
        self._optimizers = [WatchedOptimizer(one, watch.guarded, self._losses) for one in _optimizers_of(model)]
        # What was traced before was not watched.
        model.train_function = None
        for name in _WRAPPED:
            setattr(model, name, getattr(self, name))

    def put_back(self) -> None:
        """Leave the model as it was: what it trains with next is traced anew."""
        for optimizer in self._optimizers:
            optimizer.put_back()
        for name in _WRAPPED:
            self._model.__dict__.pop(name, None)
        self._model.train_function = None

    def make_train_function(self, force: bool = False) -> Any:
        """Have Keras make the function that takes an iterator, and catch its bad steps."""
        if self._model.train_function is not None and not force:
            return self._model.train_function
        made = self._make_train_function(force=force)
        run = self._model.train_function

        def train_function(iterator: Any) -> Any:
            try:
                return self._watch.run(lambda: run(iterator), self._call_of_bad_step)
            except StopIteration:
                raise
            except BaseException:
                # Keras tells no callback of an error.
                self.put_back()
                raise

        self._model.train_function = train_function
        return made

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> Any:
        """Run or trace the model's own step, seen from its beginning to its end."""
        with self._losses.listening():
            if tf.executing_eagerly():
                return self._eager_step(data)
            with self._watch.tracing(data):
                return self._train_step(data)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Note the model's own loss."""
        loss = self._compute_loss(*args, **kwargs)
        self._losses.computed(loss)
        return loss

    def _autoconvert_optionals(self, step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Keep the batch of a bad step that XLA compiles: in there, there is no room for it."""
        run: Callable[[Any], Any] = self._convert_optionals(step_function)
        if not self._model.jit_compile or self._model.run_eagerly:
            return run

        def keeping(data: Any) -> Any:
            result = run(data)
            self._watch.keep_batch_after(data)
            return result

        return keeping

    def _eager_step(self, data: Any) -> Any:
        """Run an eager step; where its update is left out, put back what its forward pass changed."""
        self._eager_batch = data
        trained = {id(variable) for variable in self._model.trainable_variables}
        state = [*self._model.variables, *self._model.metrics_variables]
        kept = [(variable, tf.identity(variable.value)) for variable in state if id(variable) not in trained]
        result, is_bad = None, True
        try:
            result = self._train_step(data)
            is_bad = not self._watch.did_update()
        finally:
            if is_bad:
                for variable, value in kept:
                    variable.assign(value)
        return result

    def _call_of_bad_step(self) -> Call | None:
        batch = self._watch.take_batch() if self._eager_batch is None else self._eager_batch
        if batch is None:
            return None
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        args = tuple(part for part in (x, y, sample_weight) if part is not None)
        return Call(self._step_of_parts, args if isinstance(batch, tuple) else (batch,), {}, is_converted=False)

    def _step_of_parts(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Run the model's step on a batch in parts, under the names that they have in ``fit``."""
        return self.train_step(keras.utils.pack_x_y_sample_weight(x, y, sample_weight))


def _microbatches(optimizer: Any) -> int:
    """Return how many steps Keras adds up for one update."""
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_accumulation_steps", None) or 1


def _optimizers_of(model: Any) -> list[Any]:
    found = {id(value): value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)}
    if model.optimizer is not None and not isinstance(model.optimizer, keras.optimizers.Optimizer):
        warnings.warn(
            f"tb_nanwatch cannot watch the optimizer {type(model.optimizer).__name__}: it is none of Keras' own",
            stacklevel=4,
        )
    inside = {id(value.inner_optimizer) for value in found.values() if hasattr(value, "inner_optimizer")}
    return [value for value in found.values() if id(value) not in inside]
