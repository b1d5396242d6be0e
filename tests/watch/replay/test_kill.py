"""A program that is killed during a replay has already written its bad step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import tb_nanwatch

PROGRAM = """
import os, signal, sys
import tensorflow as tf
import tb_nanwatch

seen = []
weight, optimizer = tf.Variable(1.0, name="line/weight"), tf.compat.v1.train.GradientDescentOptimizer(0.1)
watch = tb_nanwatch.Watch(sys.argv[1])

def inspect(x):
    seen.append(x)
    if len(seen) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return x

@watch.step
def step(x):
    with tf.GradientTape() as tape:
        loss = tf.math.log(weight) * tf.reduce_sum(tf.ensure_shape(tf.numpy_function(inspect, [x], tf.float32), [2]))
    watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

for x in ([1.0, 2.0], [1.0, 3.0], [2.0, 3.0], [1.0, float("inf")]):
    step(tf.constant(x))
"""


def test_the_log_has_the_bad_step_and_its_batch_is_there(tmp_path, read):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    back = read(tmp_path)
    assert (back.verdict.status, back.verdict.steps_seen, back.verdict.problems) == ("nonfinite", 4, ())
    first = back.verdict.first
    assert (first.step, first.phase, first.tensor, first.samples, first.evidence) == (3, "input", "x", (1,), "records")
    (alert,) = back.session.alerts
    assert (alert.replay, len(alert.window)) == (None, 4)
    batch = tb_nanwatch.load_batch(tmp_path / "batches" / "step-3.npz")
    assert batch.args[0].numpy().tolist() == [1.0, float("inf")]
