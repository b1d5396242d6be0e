"""``model.fit`` under measurement, bare and watched: each runs in a thread of its own, an epoch at a time.

A ``fit`` cannot stop and continue later, and it traces its step anew when it begins. So both run from beginning to end,
and wait between epochs.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final

import keras
import tensorflow as tf

STEPS_AN_EPOCH: Final = 256
BATCH: Final = 128
_EPOCHS: Final = 10**9


def three_layers() -> keras.Model:
    """Build the classifier of digits, compiled with Adam and a cross-entropy."""
    hidden = [keras.layers.Dense(units, activation="relu") for units in (256, 128)]
    model = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Pace(keras.callbacks.Callback):
    """Holds a ``fit`` between epochs, and measures how long each epoch takes."""

    def __init__(self) -> None:
        """Hold the first epoch."""
        super().__init__()
        self._goes_on: SimpleQueue[bool] = SimpleQueue()
        self._took_s: SimpleQueue[float] = SimpleQueue()
        self._began = 0.0

    def take(self, steps: int) -> float:
        """Run whole epochs, and return the seconds for ``steps`` steps, in proportion."""
        epochs = math.ceil(steps / STEPS_AN_EPOCH)
        return sum(self._epoch() for _ in range(epochs)) * steps / (epochs * STEPS_AN_EPOCH)

    def end(self) -> None:
        """End the ``fit`` after one more epoch."""
        self._goes_on.put(True)
        self._goes_on.put(False)

    def on_train_begin(self, logs: object = None) -> None:
        """Wait for permission to run the first epoch."""
        self._goes_on.get()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Hand over the seconds of the epoch, and wait for permission to run the next."""
        self._took_s.put(time.perf_counter() - self._began)
        if not self._goes_on.get():
            self.model.stop_training = True

    def _epoch(self) -> float:
        self._goes_on.put(True)
        return self._took_s.get()


@contextmanager
def paced_fit(callbacks: Sequence[keras.callbacks.Callback] = ()) -> Iterator[Pace]:
    """Run a ``fit`` in a thread, and yield the callback that paces it; the ``fit`` ends with the block.

    Args:
        callbacks: further callbacks of the ``fit``.
    """
    pace = Pace()
    batch = (tf.random.normal([BATCH, 784]), tf.random.uniform([BATCH], maxval=10, dtype=tf.int64))
    arguments = {
        "x": tf.data.Dataset.from_tensors(batch).repeat(),
        "epochs": _EPOCHS,
        "steps_per_epoch": STEPS_AN_EPOCH,
        "verbose": 0,
        "callbacks": [*callbacks, pace],
    }
    thread = threading.Thread(target=three_layers().fit, kwargs=arguments, daemon=True)
    thread.start()
    try:
        yield pace
    finally:
        pace.end()
        thread.join()
