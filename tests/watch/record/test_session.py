"""A session reads a ring late, or with steps that do not grow, and still reports the right step."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.schema.records import Counts, Finding, Variable
from tb_nanwatch.watch.record.ring import HostRing
from tb_nanwatch.watch.record.session import Session
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.row.cells import Layout
from tb_nanwatch.watch.row.decoding import RowDecoder

DESCENT = tf.compat.v1.train.GradientDescentOptimizer(0.1)
BAD = np.float32(np.nan)


def many_steps(watch, variable, *, counter=None, decorate=tf.function):
    """Return a function that runs one step for each value; the loss is that value times a variable."""

    @decorate
    def run(values):
        for value in values:
            watch.apply_gradients(DESCENT, [(value * tf.ones([]), variable)], loss=value * variable)
            if counter is not None:
                counter.assign_add(1)

    return run


def values(count, *, bad=()):
    found = np.ones(count, np.float32)
    found[list(bad)] = BAD
    return tf.constant(found)


class TestABadStepWhoseRowIsLost:
    def test_is_reported_with_its_number_and_ends_the_latch(self, tmp_path, read):
        variable = tf.Variable(1.0, name="layer/w")
        watch = Watch(tmp_path, window=8)
        run = many_steps(watch, variable)
        run(values(50, bad=[20]))
        assert float(variable) == pytest.approx(1.0 - 20 * 0.1)
        with pytest.raises(NonFiniteError, match=r"^Step 20: NaN first appeared in the loss") as caught:
            watch.after_step()
        assert "The update of step 20 was withheld" in str(caught.value)
        alert = caught.value.alert
        assert (alert.step, alert.first_step, len(alert.window)) == (20, 0, 0)
        run(values(2))
        watch.after_step()
        assert float(variable) == pytest.approx(1.0 - 22 * 0.1)
        watch.close()
        back = read(tmp_path)
        assert back.verdict.first == caught.value.verdict.first
        assert [alert.step for alert in back.session.alerts] == [20]

    def test_of_several_between_two_reads_the_first_is_reported(self, tmp_path):
        watch = Watch(tmp_path, window=4)
        run = many_steps(watch, tf.Variable(1.0))
        run(values(3))
        watch.after_step()
        for count, bad in ((3, [1]), (6, [0, 5]), (4, [])):
            run(values(count, bad=bad))
        with pytest.raises(NonFiniteError, match=r"^Step 4: "):
            watch.after_step()

    def test_has_the_number_of_the_users_step(self, tmp_path, read):
        number = tf.Variable(100, dtype=tf.int64, trainable=False)
        watch = Watch(tmp_path, window=8, step=number)
        many_steps(watch, tf.Variable(1.0, name="layer/w"), counter=number)(values(50, bad=[20, 30]))
        with pytest.raises(NonFiniteError, match=r"^Step 120: ") as caught:
            watch.after_step()
        assert caught.value.alert.first_step == 100
        watch.close()
        assert read(tmp_path).verdict.first.step == 120

    def test_in_one_call_of_a_decorated_step_under_xla(self, tmp_path):
        watch = Watch(tmp_path, window=8, replay=False)
        variable = tf.Variable(1.0)

        @watch.step(jit_compile=True)
        def run(values):
            for place in tf.range(50):
                watch.apply_gradients(DESCENT, [(values[place], variable)], loss=values[place] * variable)

        with pytest.raises(NonFiniteError, match=r"^Step 20: "):
            run(values(50, bad=[20]))
        assert float(variable) == pytest.approx(1.0 - 20 * 0.1)

    def test_that_began_with_bad_variables_is_reported_as_the_update_before(self, tmp_path):
        variable = tf.Variable(3.4e38, name="layer/w")
        watch = Watch(tmp_path, window=8)

        @tf.function
        def run(gradients):
            for gradient in gradients:
                watch.apply_gradients(DESCENT, [(gradient, variable)])

        run(tf.constant([0.0, 0.0, -1e38, *([0.0] * 30)]))
        with pytest.raises(NonFiniteError) as caught:
            watch.after_step()
        first = caught.value.verdict.first
        assert (first.step, first.phase, first.variable, first.kind) == (2, "update", "layer/w", "pos_inf")

    def test_is_reported_by_policy_record_unless_the_step_before_was_bad(self, tmp_path, read):
        watch = Watch(tmp_path, window=8, policy="record")
        run = many_steps(watch, tf.Variable(0.0, trainable=False))
        # The variable turns to NaN with the first bad step, and stays so.
        for bad in ([], [5], [0], [0]):
            run(values(40, bad=bad))
            watch.after_step()
        watch.close()
        assert [(alert.step, alert.action) for alert in read(tmp_path).session.alerts] == [(45, "recorded")]


def test_a_bad_argument_of_a_micro_batch_is_found_once(tmp_path):
    layout = Layout((Variable("layer/w", "layer", (2,), "float32"),), (), loss=True, clip="none")
    decoder = RowDecoder(layout)
    ring, writer = HostRing(window=4, cells=len(decoder.cells)), Writer(str(tmp_path))
    session = Session(decoder, policy="raise", writer=writer, ring=ring, counted=True, microbatches=2)
    is_finite = np.array([cell.role == "weight" for cell in decoder.cells])
    counts = np.where(is_finite[:, None], [4, 0, 0, 0], [4, 1, 0, 0])
    ring.add(np.where(is_finite, 1.0, np.nan).astype(np.float32), counts, step=0)
    given = Finding("input", "x", Counts(4, 1, 0, 0))
    alert = session.collect(action="raised", inputs=[given])
    session.close()
    assert alert.microbatch == 0
    assert [finding.role for finding in alert.findings] == ["input", "gradient", "loss"]


class TestTheUsersStep:
    def train(self, tmp_path, read, *, bad, counts, window=8, steps=30):
        """Train by a counter that the update moves on, and return the steps that were recorded."""
        number, variable = tf.Variable(0, dtype=tf.int64, trainable=False), tf.Variable(1.0)
        watch, alerts = Watch(tmp_path, window=window, step=number, replay=False), []

        @watch.step
        def step(value):
            watch.apply_gradients(DESCENT, [(value * variable, variable)], loss=value * variable)
            number.assign_add(1 if counts else 0)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for place in range(steps):
                try:
                    step(tf.constant(BAD if place in bad else 0.5))
                except NonFiniteError as error:
                    alerts.append(error.alert.step)
            watch.close()
        return read(tmp_path).log.sessions, alerts

    def test_that_the_update_counts_may_stand_still_after_a_bad_step(self, tmp_path, read):
        sessions, alerts = self.train(tmp_path, read, bad=[5, 12, 13], counts=True)
        assert [session.series.first_step.tolist() for session in sessions] == [list(range(30))]
        assert alerts == [5, 12, 13]

    def test_that_stands_still_gives_a_warning(self, tmp_path, read):
        with pytest.raises(UserWarning, match="must grow from one training step to the next; it stood at 0"):
            self.train(tmp_path, read, bad=[], counts=False)


@pytest.mark.parametrize("policy", ["record", "skip"])
def test_a_run_with_many_bad_steps_writes_the_first_alerts_and_every_step(tmp_path, read, policy):
    variable, verdicts = tf.Variable(1.0, name="layer/w"), []
    watch = Watch(tmp_path, policy=policy, window=8, replay=False, on_nonfinite=verdicts.append)

    @watch.step
    def step(value):
        watch.tensor("value", value * tf.ones([]))
        watch.apply_gradients(DESCENT, [(tf.ones([]), variable)])

    for number in range(200):
        step(tf.constant(BAD if number % 2 else 1.0))
    watch.close()
    alerts = read(tmp_path).session.alerts
    assert (len(alerts), alerts[0].step) == (16, 1)
    assert read(tmp_path).column("tensor_norm", "kinds").astype(bool).ravel().tolist() == [False, True] * 100
    assert len(verdicts) > 16
