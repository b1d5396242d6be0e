"""Steps that the host has read are on disk at once, also in a span that is not full, and the log stays small."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import Watch
from tb_nanwatch.watch.record import rest_files, writer
from tb_nanwatch.watch.record.rest_files import is_rest_file

DESCENT = tf.compat.v1.train.GradientDescentOptimizer(1e-6)
GENERATION = 2048


@pytest.fixture
def training(tmp_path):
    """Return a function that runs some steps in one call, after which the host reads; losses count up from 0."""
    variable, number = tf.Variable(1.0, name="layer/w"), tf.Variable(0.0, trainable=False)
    watch = Watch(tmp_path, window=GENERATION, flush_interval_s=1e-9)

    @tf.function
    def run(steps):
        for _ in tf.range(steps):
            watch.apply_gradients(DESCENT, [(tf.ones([]), variable)], loss=number * 1.0)
            number.assign_add(1.0)

    def train(steps):
        run(tf.constant(steps))
        watch.after_step()

    train.watch = watch
    return train


def names(tmp_path):
    return sorted(file.name for file in (tmp_path / "nanwatch").iterdir())


def check_whole(session, steps):
    """Check that each step below ``steps`` is in one span, whose numbers are those of its steps."""
    series = session.series
    assert (series.first_step[0], series.last_step[-1]) == (0, steps - 1)
    np.testing.assert_array_equal(series.first_step[1:], series.last_step[:-1] + 1)
    np.testing.assert_array_equal(series.column("loss", "min")[:, 0], series.first_step)
    np.testing.assert_array_equal(series.column("loss", "max")[:, 0], series.last_step)


def test_steps_are_on_disk_before_the_log_is_closed(training, tmp_path, read):
    training(GENERATION)
    training(GENERATION)
    seen = 2 * GENERATION
    for steps in (2000, 5, 3, 1, 2, 90):
        training(steps)
        seen += steps
        check_whole(read(tmp_path).session, seen)


def test_closing_the_log_removes_the_rest_file(training, tmp_path, read):
    for _ in range(2):
        training(GENERATION)
    assert [name for name in names(tmp_path) if is_rest_file(name)] == []
    training(1)
    rest, log = names(tmp_path)
    assert (is_rest_file(rest), is_rest_file(log)) == (True, False)
    training.watch.close()
    assert names(tmp_path) == [log]
    check_whole(read(tmp_path).session, 2 * GENERATION + 1)


def test_rest_files_replace_each_other(training, tmp_path, read, monkeypatch):
    monkeypatch.setattr(rest_files, "BYTES_A_FILE", 2000)
    for _ in range(3):
        training(GENERATION)
    for _ in range(20):
        training(1)
        found = [file for file in (tmp_path / "nanwatch").iterdir() if is_rest_file(file.name)]
        assert sum(file.stat().st_size for file in found) < 3 * 2000
    assert len(found) == 2
    check_whole(read(tmp_path).session, 3 * GENERATION + 20)


def test_a_session_after_a_killed_one_has_the_next_number_and_both_are_whole(training, tmp_path, read):
    for steps in (GENERATION, GENERATION, 1):
        training(steps)
    with Watch(tmp_path) as watch:
        variable = tf.Variable(1.0, name="layer/w")
        watch.apply_gradients(DESCENT, [(tf.ones([]), variable)], loss=variable)
    first, second = read(tmp_path).log.sessions
    assert (first.header.session, second.header.session) == (0, 1)
    check_whole(first, 2 * GENERATION + 1)
    # TensorBoard follows only the last file of a directory.
    assert [name.rpartition("session-")[2] for name in names(tmp_path)] == ["0.rest-000000000.v2", "0.v2", "1.v2"]


def test_a_clock_that_is_set_back_does_not_put_an_unfinished_span_before_the_finished_one(
    training, tmp_path, read, monkeypatch
):
    now = iter(range(10**6, 0, -10))
    monkeypatch.setattr(writer.time, "time", lambda: float(next(now)))
    for steps in (GENERATION, GENERATION, 1, 1, 1, 5):
        training(steps)
    check_whole(read(tmp_path).session, 2 * GENERATION + 8)
