"""The callback that watches ``model.fit``, and the runs of its copies."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import re
from collections.abc import Callable
from typing import Any, Final

import keras
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Policy, Verdict
from tb_nanwatch.watch.boundary import attempt
from tb_nanwatch.watch.drivers.keras.model import WatchedModel
from tb_nanwatch.watch.drivers.options import LoopOptions, directory_of
from tb_nanwatch.watch.drivers.steps import Steps
from tb_nanwatch.watch.record.paths import names_in, require_nameable
from tb_nanwatch.watch.record.plan import Plan

_OF_TRAINING: Final = frozenset({"_steps", "_watched", "_trains", "_run_of_copy"})
_COPY: Final = re.compile(r"copy-(\d{1,9})/?")


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
        if activations_every is not None and activations_every < 1:
            raise SetupError(f"activations_every must be positive, or None for never; got {activations_every}")
        self._options = LoopOptions(
            policy=policy,
            window=window,
            flush_interval_s=flush_interval_s,
            logdir=directory_of(log_dir, run_name),
            replay=replay,
            save_batch=save_batch,
            keep_dump=keep_dump,
            max_skips=max_skips,
            on_nonfinite=on_nonfinite,
        )
        self._activations_every, self._is_copy = activations_every, False
        self._begin(self._new_steps())

    def _begin(self, steps: Steps | None) -> None:
        self._steps = steps
        self._watched: WatchedModel | None = None
        self._trains: list[Any] = []
        self._run_of_copy = ""

    def _new_steps(self) -> Steps:
        options = self._options
        if self._is_copy:
            self._run_of_copy = self._run_of_copy or make_run_of_copy(options.logdir)
            options = dataclasses.replace(options, logdir=directory_of(options.logdir, self._run_of_copy))
        return Steps(options, Plan((), window=options.window, policy=options.policy))

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
        copied.__setstate__({**copy.deepcopy(state, memo), "_options": options})
        return copied

    def on_train_begin(self, logs: Any = None) -> None:
        """Wrap the model and its optimizers."""
        if self._watched is not None:
            self._watched.restore()
        if self._steps is None:
            self._steps = self._new_steps()
        trains = [self.model, self.model.optimizer, *self.model.trainable_variables]
        is_same = [*map(id, trains)] == [*map(id, self._trains)]
        if self._trains and not is_same:
            # Another model, or one that was compiled again or trains other layers, has other things to measure.
            self._steps.loop.close()
            self._steps = self._new_steps()
        self._trains = trains
        self._watched = WatchedModel(self.model, self._steps, activations_every=self._activations_every)

    def on_train_end(self, logs: Any = None) -> None:
        """Unwrap the model, and write the remaining steps.

        Raises:
            NonFiniteError: under ``"raise"`` and ``"skip"``, if the last update made a variable non-finite.
        """
        if self._watched is not None:
            self._watched.end()
            self._watched = None
        if self._steps is not None:
            self._steps.loop.close()


def make_run_of_copy(directory: str) -> str:
    """Make a new directory below a run's directory, and return its name: ``copy-1``, ``copy-2`` and so on.

    Trials of a search may run in several processes at once, so the directory is made here and not by the first
    message. When two processes choose a name at the same time, one fails to make it and takes the next.

    Args:
        directory: of the callback that was copied.

    Returns:
        The name, relative to ``directory``; ``copy-1`` where no directory can be made.
    """
    return attempt(lambda: _made(directory), failed=lambda _: "copy-1")


def _made(directory: str) -> str:
    require_nameable(directory)
    tf.io.gfile.makedirs(directory)
    taken = [int(found[1]) for name in names_in(directory) if (found := _COPY.fullmatch(name))]
    names = (f"copy-{number}" for number in itertools.count(max(taken, default=0) + 1))
    return next(name for name in names if _is_made_here(os.path.join(directory, name)))


def _is_made_here(path: str) -> bool:
    """Make a directory, and return whether it was not there before."""
    if "://" in path:
        # TensorFlow's mkdir accepts a directory that is there already.
        is_new = not tf.io.gfile.exists(path)
        tf.io.gfile.mkdir(path)
        return is_new
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True
