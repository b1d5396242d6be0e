"""Small steps for the tests of what a replay promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch

GOOD = tf.constant([1.0, 2.0])
BAD = tf.constant([0.0, 2.0])
"""Its logarithm is -Inf."""


@dataclass(frozen=True, eq=False)
class Program:
    """A watched step over one variable."""

    watch: Watch
    step: Any
    weight: tf.Variable

    def bad_step(self, *args: Any) -> NonFiniteError:
        """Run a step that is bad, and return how it ended."""
        with pytest.raises(NonFiniteError) as caught:
            self.step(*(args or (BAD,)))
        return caught.value


def log_step(logdir: Path, through: Callable[..., Any] = tf.math.log, **options: Any) -> Program:
    """Return a step whose loss is its weight times the sum of ``through(x)``, by default of logarithms."""
    weight, optimizer = tf.Variable(1.0, name="line/weight"), keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weight], **options)

    @watch.step
    def step(x, *more):
        with tf.GradientTape() as tape:
            loss = weight * tf.reduce_sum(through(x, *more))
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)
        return loss

    return Program(watch, step, weight)


def bits(variables: Any) -> list[bytes]:
    """Return what variables hold, so that NaN equals the same NaN."""
    return [np.asarray(variable.numpy()).tobytes() for variable in variables]
