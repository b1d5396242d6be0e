"""A program that trains a small network on two devices, or as one of two processes, and prints the results.

TensorFlow fixes the devices of a process when it starts, so each case is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tb_nanwatch

STEPS = 8
SAMPLES = 8
BAD_STEP = 5
Step = Callable[[int], None]


def batches(*, bad: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return batches, ``[STEPS, 2, SAMPLES, ...]``, one for each step and replica; ``bad`` has a non-finite sample."""
    random = np.random.default_rng(3)
    x = random.normal(size=(STEPS, 2, SAMPLES, 4)).astype(np.float32)
    y = x.sum(axis=-1, keepdims=True)
    if bad is not None:
        x[BAD_STEP, bad, 6, 0] = np.float32(3e38)
    return x, y


def network(*, has_statistics: bool) -> keras.Model:
    keras.utils.set_random_seed(7)
    hidden = keras.layers.Dense(3, name="hidden", kernel_initializer=keras.initializers.GlorotUniform(1))
    normal = [keras.layers.BatchNormalization(name="normal")] if has_statistics else []
    head = keras.layers.Dense(1, name="head", kernel_initializer=keras.initializers.GlorotUniform(2))
    return keras.Sequential([keras.Input([4]), hidden, *normal, head])


class Bare:
    """Trains without a watch, with the methods of one."""

    def step(self, function: Callable[..., Any]) -> Any:
        return tf.function(function)

    def tensor(self, _: str, value: tf.Tensor) -> tf.Tensor:
        return value

    def apply_gradients(self, optimizer: Any, pairs: Any, **_: Any) -> None:
        optimizer.apply_gradients(pairs)

    def close(self) -> None:
        pass


def loop_step(
    options: argparse.Namespace, strategy: Any, x: np.ndarray, y: np.ndarray
) -> tuple[keras.Model, Any, Step]:
    """Return a custom loop's model, watch and step."""
    with strategy.scope():
        model = network(has_statistics=not options.plain)
        optimizer = keras.optimizers.Adam(0.05)
        variables = model.trainable_variables
        if options.way == "v1":
            optimizer = tf.compat.v1.train.AdamOptimizer(0.05)
            # Those of TensorFlow 1 compare variables, which Keras' own refuse.
            variables = [variable.value for variable in variables]
        elif options.scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, dynamic_growth_steps=3)
        if options.way == "keras":
            optimizer.build(variables)
    watch = tb_nanwatch.Watch(options.logdir, policy=options.policy) if options.watched else Bare()

    def of_replica(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            error = watch.tensor("error", model(x, training=True) - y)
            loss = tf.reduce_mean(tf.square(error)) / 2.0
            target = optimizer.scale_loss(loss) if options.scaled else loss
        gradients = tape.gradient(target, variables)
        watch.apply_gradients(optimizer, list(zip(gradients, variables, strict=True)), loss=loss)
        return loss

    @watch.step
    def train_step(x: Any, y: Any) -> tf.Tensor:
        losses = strategy.run(of_replica, args=(x, y))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def shared(values: np.ndarray) -> Any:
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group])
        )

    def step(number: int) -> None:
        # A smaller last batch makes TensorFlow trace the step again.
        kept = SAMPLES // 2 if options.smaller and number == STEPS - 1 else SAMPLES
        train_step(shared(x[number][:, :kept]), shared(y[number][:, :kept]))

    return model, watch, step


def fit(options: argparse.Namespace, strategy: Any, x: np.ndarray, y: np.ndarray) -> keras.Model:
    """Train by ``model.fit``."""
    with strategy.scope():
        model = network(has_statistics=not options.plain)
        model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])
    data = tf.data.Dataset.from_tensor_slices((x.reshape(-1, 4), y.reshape(-1, 1))).batch(2 * SAMPLES)
    callbacks = [tb_nanwatch.NanWatchCallback(options.logdir, policy=options.policy)] if options.watched else []
    options.models.append(model)
    model.fit(data, epochs=1, verbose=0, callbacks=callbacks)
    return model


def train(options: argparse.Namespace, strategy: Any) -> None:
    x, y = batches(bad=options.bad)
    if options.way == "fit":
        fit(options, strategy, x, y)
        return
    model, watch, step = loop_step(options, strategy, x, y)
    options.models.append(model)
    for number in range(STEPS):
        if not (options.leave_out and number == BAD_STEP):
            step(number)
    watch.close()


def weights(model: keras.Model) -> list[list[list[float]]]:
    """Return the values of each variable by replica."""
    values = [getattr(variable.value, "values", (variable.value,)) for variable in model.variables]
    return [[of[replica].numpy().ravel().tolist() for of in values] for replica in range(len(values[0]))]


def strategy_of(options: argparse.Namespace) -> Any:
    if options.strategy == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if options.strategy == "one":
        return tf.distribute.OneDeviceStrategy("CPU:0")
    both = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], both)
    if options.strategy == "central":
        return tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"], "CPU:0")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--strategy", default="mirrored")
    parser.add_argument("--way", default="keras")
    parser.add_argument("--policy", default="raise")
    parser.add_argument("--logdir")
    parser.add_argument("--bad", type=int)
    parser.add_argument("--bare", dest="watched", action="store_false")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--scaled", action="store_true")
    parser.add_argument("--smaller", action="store_true")
    parser.add_argument("--leave-out", action="store_true")
    options = parser.parse_args(arguments)
    options.models = []
    return options


def result_of(options: argparse.Namespace, strategy: Any) -> dict[str, Any]:
    """Train, and return the results."""
    result: dict[str, Any] = {"error": None}
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            train(options, strategy)
        except tb_nanwatch.NonFiniteError as error:
            first = error.verdict.first
            result["error"] = str(error)
            result["op"] = first.op.type if first and first.op else None
            result |= {fact: getattr(first, fact) for fact in ("step", "phase", "replica", "worker", "evidence")}
            result["notes"] = list(error.verdict.notes)
    result["seconds"] = time.monotonic() - began
    result["warnings"] = [str(warning.message) for warning in warned if "tb_nanwatch" in str(warning.message)]
    result["weights"] = weights(options.models[0])
    return result


def main(cases: Sequence[str]) -> None:
    """Train each case, and print JSON for each."""
    every = [options_of(case.split()) for case in cases]
    strategy = strategy_of(every[0])
    for options in every:
        sys.stdout.write("RESULT " + json.dumps(result_of(options, strategy)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
