"""A full disk gives one warning: training goes on, and the log so far stays readable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import resource, signal, sys, warnings
import tensorflow as tf
import tb_nanwatch
# No file may grow beyond this: a write then fails as it does on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
variable = tf.Variable(tf.ones([8]), name="layer/w")
watch = tb_nanwatch.Watch(sys.argv[1], window=16, replay=False)
optimizer = tf.compat.v1.train.GradientDescentOptimizer(1e-4)

@watch.step
def train_step(x):
    watch.apply_gradients(optimizer, [(x * variable, variable)], loss=x)

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2000):
        train_step(tf.constant(1.0))
    watch.close()
messages = [str(warning.message) for warning in caught if "records nothing more" in str(warning.message)]
print(len(messages), "training goes on" in messages[0], float(variable[0]) < 0.9)
"""


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Return the run's directory, and the output of the program that trained into it."""
    path = tmp_path_factory.mktemp("full")
    command = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return path, done.stdout.split()


def test_there_is_one_warning_and_training_goes_on(full):
    assert full[1] == ["1", "True", "True"]


def test_the_log_so_far_stays_readable(full, read):
    (session,) = read(full[0]).log.sessions
    assert session.header.variables[0].name == "layer/w"
    steps = session.series.first_step.tolist()
    assert steps == list(range(len(steps)))
    assert 100 < len(steps) < 2000
