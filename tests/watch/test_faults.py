"""Any failure in the host is one warning that names it; training goes on, and a bad step is still an error.

The faults are thrown into every function of the package that the host calls after a step, which is found by a run under
a profiler: an internal that is new is among them by itself.
"""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, Watch
from tests.watch.faults import InjectedError, failing, functions_called_by_host

STEPS, BAD = 3, 1
VALUES = np.array([float("nan") if step == BAD else 1.0 for step in range(STEPS)], np.float32)
AT_LEAST = {"loop": 150, "fit": 20, "session": 20}
"""If fewer functions are found, the search for them is broken."""


def loop(logdir, **options):
    weight, optimizer = tf.Variable([0.0], name="line/weight"), tf.compat.v1.train.GradientDescentOptimizer(1.0)
    watch = Watch(logdir, [weight], window=2, **options)
    for value in VALUES:
        x = tf.constant([value])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight * x)
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)
    watch.close()
    return weight.numpy()


def fit(logdir, **options):
    inputs = keras.Input([1])
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    callback = NanWatchCallback(logdir, window=2, **options)
    model.fit(VALUES[:, None], np.ones([STEPS, 1]), batch_size=1, shuffle=False, verbose=0, callbacks=[callback])
    return model.get_weights()[0]


def session(logdir, **options):
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        x, weight = v1.placeholder(tf.float32, [1], name="x"), v1.get_variable("weight", [1])
        watch = Watch(logdir, window=2, **options)
        optimizer = v1.train.GradientDescentOptimizer(1.0)
        loss = tf.reduce_sum(weight * x)
        train_op = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss, [weight]), loss=loss)
        with v1.Session() as running:
            running.run(weight.assign([0.0]))
            for value in VALUES:
                watch.session_run(running, train_op, {x: [value]})
            last = running.run(weight)
            watch.close()
    return last


WAYS = {"loop": loop, "fit": fit, "session": session}


def outcome_of(way, logdir, policy):
    """Train, and return the weights or the error, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = WAYS[way](logdir, policy=policy, replay=False)
        except NonFiniteError as error:
            result = error
    return result, [str(warning.message) for warning in caught]


def survives(place, way, policy, fault_free, logdir):
    """Return what is wrong with a training into which a fault was thrown; ``None`` if nothing is."""
    try:
        result, caught = outcome_of(way, logdir, policy)
    except (InjectedError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return f"training ended with {type(error).__name__}: {error}"
    if not any(f"injected into {place}" in text for text in caught):
        return "no warning names it"
    if policy == "raise":
        return None if isinstance(result, NonFiniteError) else "the bad step was no error"
    if isinstance(result, NonFiniteError):
        return f"an error in a policy that has none: {result}"
    is_same = np.array_equal(result, fault_free, equal_nan=True)
    return None if is_same or "put_back" in place else f"weights {result}, not {fault_free}"


def called_in(way, policy, logdir):
    """Return the result of a training without a fault, and the functions that the host calls in it."""
    found = {}
    with functions_called_by_host(found):
        result, _ = outcome_of(way, logdir, policy)
    return result, found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", ["raise", "skip", "record"])
def test_a_fault_in_any_internal_is_one_warning_and_changes_nothing_else(policy, way, tmp_path):
    fault_free, found = called_in(way, policy, tmp_path / "whole")
    if way != "loop":
        # The functions that the loop of a program also calls are tried there.
        _, known = called_in("loop", policy, tmp_path / "loop")
        found = {place: function for place, function in found.items() if place not in known or "loop.py" in place}
    wrong = {}
    for number, (place, function) in enumerate(sorted(found.items())):
        with failing(place, function):
            what = survives(place, way, policy, fault_free, tmp_path / str(number))
        if what is not None:
            wrong[place] = what
    assert not wrong
    assert len(found) >= AT_LEAST[way]
