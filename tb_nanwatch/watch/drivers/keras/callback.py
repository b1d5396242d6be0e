"""The callback: one line that watches ``model.fit``."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any, Final

import keras

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Policy, Verdict
from tb_nanwatch.watch.api import Watch
from tb_nanwatch.watch.drivers.keras.copies import make_run_of_copy
from tb_nanwatch.watch.drivers.keras.model import WatchedModel
from tb_nanwatch.watch.drivers.options import directory_of

_OF_TRAINING: Final = frozenset({"_watch", "_watched", "_trains", "_run_of_copy"})


class NanWatchCallback(keras.callbacks.Callback):
    """Watch ``model.fit``, and report the first step, layer and operation where NaN or Inf appeared.

    While the model trains, the callback wraps its ``train_step`` and its optimizers; it unwraps them at the end.
    Nothing else of the model changes. Several ``fit`` calls with one callback are one run.

    A copy (``copy.deepcopy``, ``pickle``, a search of keras-tuner, ``clone`` of scikit-learn) is a fresh callback with
    the same options. Each copy that trains is a run of its own: ``copy-1``, ``copy-2`` and so on below the directory of
    the original, in the order in which the copies begin to train.

    Example:
        >>> import tempfile, keras, numpy as np, tb_nanwatch
        >>> model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1, name="line")])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones([8, 2], "float32"), np.ones([8, 1], "float32")
        >>> y[5] = np.inf
        >>> callback = tb_nanwatch.NanWatchCallback(tempfile.mkdtemp())
        >>> model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[callback])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        tb_nanwatch.errors.NonFiniteError: Step 1: +Inf was in the input y, before anything was computed...
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        policy: Policy = "raise",
        window: int = 256,
        replay: bool = True,
        save_batch: bool = True,
        keep_dump: bool = False,
        max_skips: int = 10,
        on_nonfinite: Callable[[Verdict], object] | None = None,
        run_name: str | None = None,
        flush_interval_s: float = 10.0,
        activations_every: int | None = None,
    ) -> None:
        """Prepare a callback; nothing is written before the first step.

        :class:`~tb_nanwatch.Watch` describes the options in full.

        Args:
            log_dir: TensorBoard's log directory, as for ``keras.callbacks.TensorBoard``; both may have the same.
            policy: ``"raise"``, ``"skip"`` or ``"record"``.
            window: the number of steps that the flight recorder holds.
            replay: whether a bad step is replayed, to name the operation.
            save_batch: whether the batch of a bad step is saved.
            keep_dump: whether TensorFlow's debugger also dumps the replay.
            max_skips: ``"skip"`` raises once so many steps in a row were bad.
            on_nonfinite: called with the verdict of each reported bad step.
            run_name: a sub-directory of ``log_dir`` for this run.
            flush_interval_s: seconds between two reads by the host when steps are slow.
            activations_every: record the norm of each layer's output every so many steps of the optimizer, as a
                watched tensor with the layer's path as its name. A NaN in an output makes the step bad; an Inf alone
                gives a warning. In the other steps this costs only fusion: TensorFlow computes the outputs of these
                layers operation by operation. By default no output is recorded.

        Raises:
            SetupError: if an argument is invalid, or Keras does not run on TensorFlow.
        """
        super().__init__()
        if keras.backend.backend() != "tensorflow":
            raise SetupError(f"NanWatchCallback needs Keras to run on TensorFlow; it runs on {keras.backend.backend()}")
        self._options: dict[str, Any] = {
            "policy": policy,
            "window": window,
            "replay": replay,
            "save_batch": save_batch,
            "keep_dump": keep_dump,
            "max_skips": max_skips,
            "on_nonfinite": on_nonfinite,
            "run_name": run_name,
            "flush_interval_s": flush_interval_s,
        }
        if activations_every is not None and activations_every < 1:
            raise SetupError(f"activations_every must be positive, or None for never; got {activations_every}")
        self._log_dir, self._activations_every = log_dir, activations_every
        self._is_copy = False
        # A wrong argument is told where it was given.
        self._begin(self._new_watch())

    def _begin(self, watch: Watch | None) -> None:
        self._watch = watch
        self._watched: WatchedModel | None = None
        self._trains: list[Any] = []
        self._run_of_copy = ""

    def _new_watch(self) -> Watch:
        if not self._is_copy:
            return Watch(self._log_dir, **self._options)
        directory = directory_of(self._log_dir, self._options["run_name"])
        self._run_of_copy = self._run_of_copy or make_run_of_copy(directory)
        return Watch(directory, **{**self._options, "run_name": self._run_of_copy})

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy: the options, and nothing of a training."""
        kept = {name: value for name, value in vars(self).items() if name not in _OF_TRAINING}
        return {**kept, **vars(keras.callbacks.Callback())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin as a copy."""
        self.__dict__.update(state)
        self._is_copy = True
        self._begin(None)

    def __deepcopy__(self, memo: dict[int, Any]) -> NanWatchCallback:
        """Return a copy that calls the same ``on_nonfinite`` and does not copy the object that owns it."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        state = self.__getstate__()
        options = state.pop("_options")
        copied.__setstate__({**copy.deepcopy(state, memo), "_options": dict(options)})
        return copied

    def on_train_begin(self, logs: Any = None) -> None:
        """Wrap the model and its optimizers."""
        if self._watched is not None:
            self._watched.put_back()
        if self._watch is None:
            self._watch = self._new_watch()
        trains = [self.model, self.model.optimizer, *self.model.trainable_variables]
        is_same = [*map(id, trains)] == [*map(id, self._trains)]
        if self._trains and not is_same:
            # Another model, or one that was compiled again or trains other layers, has other things to measure.
            self._watch.close()
            self._watch = self._new_watch()
        self._trains = trains
        self._watched = WatchedModel(self.model, self._watch, activations_every=self._activations_every)

    def on_train_end(self, logs: Any = None) -> None:
        """Unwrap the model, and write the remaining steps.

        Raises:
            NonFiniteError: under ``"raise"`` and ``"skip"``, if the last update made a variable non-finite.
        """
        if self._watched is not None:
            self._watched.end()
            self._watched = None
        if self._watch is not None:
            self._watch.close()
