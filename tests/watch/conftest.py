"""Fixtures: a small real network, and a run read back from its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir
from tb_nanwatch.schema.records import Verdict


class ReadBack:
    """A run as the viewing side sees it."""

    def __init__(self, logdir: Path) -> None:
        reader = open_logdir(str(logdir))
        index = reader.index(THE_LOGDIR)
        self.log: RunLog = reader.log(index, ".")
        self.verdict: Verdict = diagnose(self.log)

    @property
    def session(self) -> SessionLog:
        (session,) = self.log.sessions
        return session

    def column(self, stat: str, keeps: str = "max") -> np.ndarray:
        return np.asarray(self.session.series.column(stat, keeps))


@pytest.fixture
def read() -> Callable[[Path], ReadBack]:
    return ReadBack


@pytest.fixture(autouse=True)
def seed() -> None:
    keras.utils.set_random_seed(7)


@pytest.fixture
def as_written() -> Iterator[None]:
    """Keep TensorFlow's graph optimiser from regrouping or fusing arithmetic by what else reads its results."""
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "remapping": False})
    yield
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True, "remapping": True})


class Regression:
    """Two dense layers on ten fixed samples, and a training step over them that may be watched."""

    def __init__(self, *, learning_rate: float = 0.01, optimizer: keras.Optimizer | None = None) -> None:
        keras.utils.set_random_seed(7)
        self.model = keras.Sequential(
            [keras.layers.Dense(8, "tanh", name="hidden"), keras.layers.Dense(1, name="head")]
        )
        self.model.build((None, 3))
        self.variables = self.model.trainable_variables
        self.optimizer = optimizer or keras.optimizers.SGD(learning_rate)
        self.optimizer.build(self.variables)
        random = np.random.default_rng(1)
        self.x = tf.constant(random.normal(size=(10, 3)), tf.float32)
        self.y = tf.constant(random.normal(size=(10, 1)), tf.float32)

    def loss(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(self.model(x) - y))

    def gradients(self, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = self.loss(x, y)
        return loss, tape.gradient(loss, [variable.value for variable in self.variables])

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in (*self.variables, *self.optimizer.variables)]


@pytest.fixture
def regression() -> Regression:
    return Regression()
