"""The viewing side reads every step as the watch wrote it."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tb_nanwatch
from tb_nanwatch.cli import main
from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir


def train(watch, batches):
    """Take a step on two weights for each batch, and return the losses."""
    weights = [tf.Variable([1.0, 2.0], name="first/kernel"), tf.Variable([0.5], name="second/kernel")]
    optimizer = keras.optimizers.SGD(0.0)

    @watch.step
    def step(x):
        with tf.GradientTape() as tape:
            hidden = watch.tensor("hidden", weights[0] * x)
            loss = tf.reduce_sum(tf.math.log(hidden)) * weights[1][0]
        gradients = tape.gradient(loss, weights)
        watch.apply_gradients(optimizer, zip(gradients, weights, strict=True), loss=loss)
        return loss

    return [float(step(tf.constant(x))) for x in batches]


def log_of(logdir, run="."):
    reader = open_logdir(str(logdir))
    index = reader.index(THE_LOGDIR)
    return reader.log(index, run), reader.verdict(index, run)


BATCHES = [[1.0 + number, 2.0] for number in range(600)]


def test_every_step_of_a_finite_run_is_read_as_it_was(tmp_path):
    with tb_nanwatch.Watch(tmp_path) as watch:
        losses = train(watch, BATCHES)
    log, verdict = log_of(tmp_path)
    (session,) = log.sessions
    assert (verdict.status, verdict.steps_seen, verdict.problems) == ("finite", 600, ())
    assert session.series.first_step.tolist() == list(range(600))
    np.testing.assert_array_equal(session.series.column("loss", "max")[:, 0], np.float32(losses))
    np.testing.assert_allclose(session.series.column("weight_norm", "max"), [[math.sqrt(5), 0.5]] * 600, rtol=1e-6)
    hidden = [math.hypot(*(np.array(x) * [1, 2])) for x in BATCHES]
    np.testing.assert_allclose(session.series.column("tensor_norm", "max")[:, 0], hidden, rtol=1e-6)
    assert set(session.series.column("clip_ratio", "min").ravel().tolist()) == {1.0}
    assert session.header.tensors == ("hidden",)


def test_the_verdict_of_the_error_is_the_verdict_of_the_log(tmp_path, capsys):
    with tb_nanwatch.Watch(tmp_path / "some_run") as watch, pytest.raises(tb_nanwatch.NonFiniteError) as raised:
        train(watch, [*BATCHES[:300], [0.0, 2.0], *BATCHES[:5]])
    log, verdict = log_of(tmp_path, "some_run")
    assert verdict.text.startswith("Step 300: -Inf first appeared in the output of Log (")
    assert [cause.id for cause in verdict.causes] == ["logarithm-of-zero"]
    of_the_error = raised.value.verdict
    assert (verdict.first, verdict.chain, verdict.causes) == (
        of_the_error.first,
        of_the_error.chain,
        of_the_error.causes,
    )
    assert verdict.steps_seen == 301
    assert [alert.step for alert in log.sessions[0].alerts] == [300]
    assert main([str(tmp_path), "--json"]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["run"], run["first"]["step"], run["first"]["phase"]) == ("some_run", 300, "loss")


def test_a_recorded_run_reports_the_first_bad_step(tmp_path):
    with tb_nanwatch.Watch(tmp_path, policy="record") as watch:
        train(watch, [*BATCHES[:20], [0.0, 2.0], *BATCHES[:20], [0.0, 2.0]])
    log, verdict = log_of(tmp_path)
    assert (verdict.first.step, verdict.steps_seen) == (20, 42)
    assert log.sessions[0].alerts[0].action == "recorded"


def test_a_second_watch_is_a_second_session(tmp_path):
    for count in (50, 30):
        with tb_nanwatch.Watch(tmp_path) as watch:
            train(watch, BATCHES[:count])
    log, verdict = log_of(tmp_path)
    assert [len(session.series) for session in log.sessions] == [50, 30]
    assert (verdict.status, verdict.steps_seen) == ("finite", 80)
