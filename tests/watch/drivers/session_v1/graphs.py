"""Training graphs of TensorFlow 1, small and real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch

v1 = tf.compat.v1
EXACT = v1.ConfigProto()
EXACT.graph_options.rewrite_options.arithmetic_optimization = 2
"""TensorFlow adds in the order of the program."""
SAMPLES = 16


class Critic:
    """Weight-normalised layers, a squared error, each gradient clipped by its norm: built in the default graph."""

    def __init__(self, activation: Callable[..., Any], *, use_resource: bool = True, layers: int = 2) -> None:
        v1.set_random_seed(5)
        self.use_resource = use_resource
        random = np.random.default_rng(2)
        self.data = random.normal(size=(SAMPLES, 4)).astype(np.float32)
        self.returns = random.normal(size=SAMPLES).astype(np.float32)
        self.x = v1.placeholder(tf.float32, [None, 4], name="x")
        self.r = v1.placeholder(tf.float32, [None], name="r")
        hidden: Any = self.x
        for number in range(1, layers + 1):
            hidden = self.dense(hidden, 8, f"l{number}", activation)
        value = self.dense(hidden, 1, "head", tf.identity)[:, 0]
        self.squares = tf.square(self.r - value)  # origin: square
        self.loss = tf.reduce_mean(self.squares)  # origin: mean
        self.pairs = v1.train.GradientDescentOptimizer(1.0).compute_gradients(self.loss)
        self.raw = [gradient for gradient, _ in self.pairs]
        self.clipped = [(tf.clip_by_norm(gradient, 5.0), variable) for gradient, variable in self.pairs]

    def dense(self, x: Any, size: int, name: str, activation: Callable[..., Any]) -> Any:
        with v1.variable_scope(name, use_resource=self.use_resource):
            weights = v1.get_variable("V", [x.shape[-1], size], initializer=v1.random_normal_initializer(0, 0.5))
            gain = v1.get_variable("g", [size], initializer=v1.ones_initializer())
            bias = v1.get_variable("b", [size], initializer=v1.zeros_initializer())
            return activation(tf.matmul(x, weights) * gain / tf.norm(weights, axis=0) + bias)  # origin: dense

    @property
    def feed(self) -> dict[Any, Any]:
        return {self.x: self.data, self.r: self.returns}

    def feed_with(self, sample: int, value: float) -> dict[Any, Any]:
        returns = self.returns.copy()
        returns[sample] = value
        return {self.x: self.data, self.r: returns}


def watched_step(watch: Watch, loss: tf.Tensor, *, rate: float = 0.1) -> tf.Operation:
    """Return the operation that takes a watched step down a loss."""
    optimizer = v1.train.GradientDescentOptimizer(rate)
    return watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss)


def line_of(marker: str, file: str) -> int:
    """Return the number of the only line of a file that ends with ``# origin: MARKER``."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    (number,) = (at for at, text in enumerate(lines, 1) if text.endswith(f"# origin: {marker}"))
    return number


def variables_of(session: Any) -> dict[str, np.ndarray]:
    """Return every global variable of a session, slots too."""
    return dict(zip([v.name for v in v1.global_variables()], session.run(v1.global_variables()), strict=True))


def same(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> bool:
    return before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)


class Normalised:
    """A dense layer, a batch norm of it that keeps moving statistics, and a squared error."""

    def __init__(self, *, use_resource: bool = True) -> None:
        self.x = v1.placeholder(tf.float32, [None, 3], name="x")
        self.y = v1.placeholder(tf.float32, [None, 2], name="y")
        random = np.random.default_rng(4)
        self.data, self.labels = (random.normal(size=(SAMPLES, size)).astype(np.float32) for size in (3, 2))
        with v1.variable_scope("layer", use_resource=use_resource):
            kernel = v1.get_variable("kernel", [3, 2], initializer=v1.random_normal_initializer(0, 0.5, seed=1))
            scale = v1.get_variable("gamma", [2], initializer=v1.ones_initializer())
            self.mean = v1.get_variable("moving_mean", [2], initializer=v1.zeros_initializer(), trainable=False)
            self.variance = v1.get_variable("moving_variance", [2], initializer=v1.ones_initializer(), trainable=False)
            hidden = tf.matmul(self.x, kernel)
            mean, variance = tf.nn.moments(hidden, 0)
            for kept, now in ((self.mean, mean), (self.variance, variance)):
                v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, v1.assign_sub(kept, (kept - now) * 0.1))
            out = tf.nn.batch_normalization(hidden, mean, variance, None, scale, 1e-3)
        self.loss = tf.reduce_mean(tf.square(out - self.y))
        self.pairs = v1.train.GradientDescentOptimizer(1.0).compute_gradients(self.loss)

    @property
    def updates(self) -> list[Any]:
        return v1.get_collection(v1.GraphKeys.UPDATE_OPS)

    def feed(self, *, poison: float = 0.0) -> dict[Any, Any]:
        data = self.data.copy()
        data[5] += poison
        return {self.x: data, self.y: self.labels}
