"""A failure inside the watch gives one warning, and a bad step is still an error."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.drivers import outcome
from tb_nanwatch.watch.record.session import Session


def fail(*_, **__):
    raise OSError("the dog ate it")


def training(watch, *, jit_compile=False):
    weight, optimizer = tf.Variable([0.0], name="line/weight"), tf.compat.v1.train.GradientDescentOptimizer(1.0)

    @watch.step(jit_compile=jit_compile)
    def train_step(x):
        watch.apply_gradients(optimizer, [(x, weight)], loss=tf.reduce_sum(x))

    def train(value):
        train_step(tf.constant([value]))
        return float(weight[0])

    return train


def test_each_part_that_fails_gives_one_warning_and_the_replacement():
    boundary = Boundary()
    with pytest.warns(UserWarning, match=r"^tb_nanwatch could not fetch the stick \(the dog ate it\)$") as caught:
        assert [boundary.attempt("fetch the stick", fail, otherwise=3) for _ in range(2)] == [3, 3]
    assert len(caught) == 1
    assert boundary.attempt("count", lambda: 4, otherwise=3) == 4


def test_an_interrupt_passes():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Boundary().attempt("wait", interrupt, otherwise=None)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_bad_step_that_cannot_be_read_is_an_error_with_the_reason(tmp_path, monkeypatch, jit_compile):
    watch = Watch(tmp_path)
    train = training(watch, jit_compile=jit_compile)
    train(1.0)
    monkeypatch.setattr(Session, "collect", fail)
    with (
        pytest.warns(UserWarning, match="could not read the steps, and records nothing more"),
        pytest.raises(NonFiniteError) as caught,
    ):
        train(float("nan"))
    says = "Step 1 was not finite. Its origin is unknown, because tb_nanwatch failed: the dog ate it."
    assert str(caught.value) == says
    verdict = caught.value.verdict
    assert (verdict.status, verdict.first, verdict.text, caught.value.alert) == ("nonfinite", None, says, None)
    # The update was withheld. A program that catches the error goes on from there, and meets the next bad step too.
    assert train(1.0) == -2.0
    with pytest.raises(NonFiniteError, match=r"^Step 3 was not finite"):
        train(float("nan"))


def test_without_a_verdict_the_error_has_the_step_and_the_alert(tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "verdict_of_alert", fail)
    verdicts = []
    watch = Watch(tmp_path, replay=False, on_nonfinite=verdicts.append)
    train = training(watch)
    train(1.0)
    with pytest.warns(UserWarning, match="could not say what was first"), pytest.raises(NonFiniteError) as caught:
        train(float("nan"))
    assert str(caught.value).startswith("Step 1 was not finite.")
    assert (caught.value.alert.step, verdicts) == (1, [])


def test_an_error_is_complete_although_the_log_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tb_nanwatch.schema.wire.encode_series", fail)
    train = training(Watch(tmp_path))
    with pytest.warns(UserWarning, match="could not write the log, and records nothing more") as caught:
        train(1.0)
        with pytest.raises(NonFiniteError, match="Step 1: NaN was in the input x"):
            train(float("nan"))
    assert len(caught) == 1


def test_an_error_of_the_users_function_reaches_the_user(tmp_path):
    train = training(Watch(tmp_path, policy="record", on_nonfinite=fail))
    with pytest.raises(OSError, match="the dog ate it"):
        train(float("nan"))
