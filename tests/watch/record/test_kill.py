"""A killed process loses at most a window of steps, those since the host's last read, and never an alert."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
import numpy as np
import tensorflow as tf
import tb_nanwatch

way, window, end, logdir = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
v1 = tf.compat.v1
options = {"window": window, "policy": "record", "on_nonfinite": lambda verdict: print(verdict.first.step, flush=True)}
STEPS, BAD = 700, 600

def value_of(step):
    return float("nan") if step == BAD else 1.0

def die():
    if end == "exit":
        os._exit(1)
    os.kill(os.getpid(), getattr(signal, end))
    signal.pause()

if way == "fit":
    import keras

    class Dies(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == STEPS - 1:
                die()

    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    # Weights that are NaN would make every later step bad.
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones([STEPS + 9, 1], "float32")
    y = np.array([[value_of(step)] for step in range(STEPS + 9)], "float32")
    watched = tb_nanwatch.NanWatchCallback(logdir, **options)
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[watched, Dies()])
elif way == "loop":
    weight, optimizer = tf.Variable([1.0], name="line/weight"), v1.train.GradientDescentOptimizer(1e-6)
    watch = tb_nanwatch.Watch(logdir, **options)

    @watch.step
    def train_step(x):
        watch.apply_gradients(optimizer, [(tf.ones([1]), weight)], loss=x)

    for step in range(STEPS):
        train_step(tf.constant(value_of(step)))
    die()
else:
    with tf.Graph().as_default():
        x, weight = v1.placeholder(tf.float32, []), v1.get_variable("weight", [1])
        watch = tb_nanwatch.Watch(logdir, **options)
        optimizer = v1.train.GradientDescentOptimizer(1e-6)
        train_op = watch.apply_gradients(optimizer, [(tf.ones([1]), weight)], loss=x)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for step in range(STEPS):
                watch.session_run(session, train_op, {x: value_of(step)})
            die()
"""
STEPS = 700


@pytest.mark.parametrize(
    ("way", "window", "end"),
    [
        ("loop", 16, "SIGKILL"),
        ("loop", 256, "exit"),
        ("fit", 16, "exit"),
        ("fit", 256, "SIGTERM"),
        ("session", 16, "SIGTERM"),
        ("session", 256, "SIGKILL"),
    ],
)
def test_a_killed_training_loses_at_most_a_window_of_steps_and_no_alert(way, window, end, tmp_path, read):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", PROGRAM, way, str(window), end, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == (1 if end == "exit" else -getattr(signal, end)), done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[0]) == 600
    back = read(tmp_path)
    steps = back.session.series.first_step.tolist()
    assert steps == list(range(len(steps)))
    assert STEPS - window <= len(steps) <= STEPS
    assert [alert.step for alert in back.session.alerts] == [600]
    assert back.verdict.problems == ()
