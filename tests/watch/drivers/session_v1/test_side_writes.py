"""Variables that are not trained, and side writes of a run."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tests.watch.drivers.session_v1.graphs import line_of, v1, watched_step


class Gained:
    """A weight that is trained, and a gain that is not."""

    def __init__(self, tmp_path, use_resource, **options):
        self.assign_type = "AssignVariableOp" if use_resource else "Assign"
        self.x = v1.placeholder(tf.float32, [3], name="x")
        with v1.variable_scope("layer", use_resource=use_resource):
            weight = v1.get_variable("weight", [3], initializer=v1.ones_initializer())
            self.gain = v1.get_variable("gain", [3], initializer=v1.ones_initializer(), trainable=False)
        self.loss = tf.reduce_mean(weight * self.gain * self.x)
        self.watch = Watch(tmp_path, **options)
        self.train = watched_step(self.watch, self.loss)

    def verdict(self, runs, *, before=None):
        """Make runs, the last of them bad, and return the verdict and the gain after it."""
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            if before is not None:
                session.run(before)
            verdict = self._verdict_of(session, runs)
            gain = session.run(self.gain)
        self.watch.close()
        return verdict, gain

    def _verdict_of(self, session, runs):
        try:
            for fetches in runs:
                self.watch.session_run(session, fetches, {self.x: [1, 2, 3]})
        except NonFiniteError as error:
            return error.verdict
        return None


@pytest.fixture(params=["resource", "reference"])
def gained(request, tmp_path):
    return Gained(tmp_path, request.param == "resource")


def place(verdict):
    first = verdict.first
    return first.step, first.phase, first.op and first.op.type, first.variable, first.evidence


def test_a_read_of_a_variable_runs_no_assignment(gained):
    bad = tf.identity(gained.gain.assign([np.nan] * 3))
    for number in range(5):
        tf.identity(gained.gain.assign([float(number)] * 3))
    verdict, gain = gained.verdict([gained.train], before=bad)
    assert place(verdict) == (0, "state", None, "layer/gain", "replay")
    assert np.isnan(gain).all()


def test_a_variable_that_the_same_run_makes_finite_again_is_named(gained):
    with tf.control_dependencies([gained.train]):
        good = v1.assign(gained.gain, [1.0] * 3)  # origin: good
    bad = v1.assign(gained.gain, [np.nan] * 3)
    verdict, gain = gained.verdict([gained.train, bad, [gained.train, good]])
    assert place(verdict) == (1, "state", None, "layer/gain", "replay")
    assert (gain == 1).all()
    notes = " ".join(verdict.notes)
    assert f"The run of the bad step also wrote layer/gain ({gained.assign_type}, " in notes
    assert f"test_side_writes.py:{line_of('good', __file__)}" in notes
    assert "This write is no part of the update, and it was kept." in notes


def test_an_overwritten_reference_is_named_with_the_write_before(tmp_path):
    gained = Gained(tmp_path, use_resource=False)
    with tf.control_dependencies([gained.loss]):
        good = v1.assign(gained.gain, [1.0] * 3)
    bad = v1.assign(gained.gain, [np.nan] * 3)  # origin: bad
    verdict, _ = gained.verdict([gained.train, bad, [gained.train, good]])
    assert place(verdict) == (1, "state", None, "layer/gain", "replay")
    assert f"test_side_writes.py:{line_of('bad', __file__)}" in " ".join(verdict.notes)


def test_the_assignment_of_the_same_run_is_named_with_its_line(gained):
    bad = v1.assign(gained.gain, [np.nan] * 3)  # origin: same
    verdict, _ = gained.verdict([[gained.train, bad]] * 2)
    assert place(verdict)[1:] == ("state", gained.assign_type, "layer/gain", "replay")
    assert verdict.first.source.line == line_of("same", __file__)
    assert "another fetch of the same run. Nothing orders that write" in " ".join(verdict.notes)


def test_the_operation_that_made_an_assigned_value_bad_is_the_origin(gained):
    value = tf.math.log(gained.x - 3.0)  # origin: value
    bad = v1.assign(gained.gain, value)
    verdict, _ = gained.verdict([[gained.train, bad]] * 2)
    assert (verdict.first.phase, verdict.first.op.type, verdict.first.source.line) == (
        "state",
        "Log",
        line_of("value", __file__),
    )


def test_a_note_says_that_writes_after_the_train_operation_were_kept(gained):
    with tf.control_dependencies([gained.train]):
        after = v1.assign_add(gained.gain, [0.0] * 3)
    verdict, _ = gained.verdict([[gained.train, after]], before=v1.assign(gained.gain, [np.nan] * 3))
    assert "This write is no part of the update, and it was kept." in " ".join(verdict.notes)


def test_an_untrained_variable_that_began_bad_comes_before_values_that_it_made_bad(gained, tmp_path):
    # The gradient of a maximum divides 0 by 0 where the maximum is NaN.
    gained.watch.close()
    with v1.variable_scope("other", use_resource=True):
        weight = v1.get_variable("weight", [3], initializer=v1.ones_initializer())
    scaled = weight * gained.gain * gained.x
    loss = tf.reduce_mean(scaled) + tf.reduce_max(scaled)
    optimizer, watch = v1.train.GradientDescentOptimizer(0.1), Watch(tmp_path)
    train = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss, [weight]), loss=loss)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(v1.assign(gained.gain, [np.nan] * 3))
        with pytest.raises(NonFiniteError) as caught:
            watch.session_run(session, train, {gained.x: [1, 2, 3]})
    watch.close()
    assert place(caught.value.verdict) == (0, "state", None, "layer/gain", "replay")


def test_the_statistics_of_another_network_are_not_measured(tmp_path):
    def network(name):
        x = v1.placeholder(tf.float32, [None, 3], name=name)
        with v1.variable_scope(name, use_resource=True):
            kernel = v1.get_variable("kernel", [3, 2], initializer=v1.ones_initializer())
            kept = v1.get_variable("moving_mean", [2], initializer=v1.zeros_initializer(), trainable=False)
        mean, _ = tf.nn.moments(tf.matmul(x, kernel), 0)
        update = v1.assign_sub(kept, (kept - mean) * 0.1)
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
        return x, kernel, tf.reduce_mean(tf.matmul(x, kernel) - mean), update

    steps = []
    for x, kernel, loss, update in [network("one"), network("other")]:
        watch, optimizer = Watch(tmp_path / x.op.name), v1.train.GradientDescentOptimizer(0.1)
        with tf.control_dependencies([update]):
            pairs = optimizer.compute_gradients(loss, [kernel])
            steps.append((watch, x, watch.apply_gradients(optimizer, pairs, loss=loss)))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for watch, x, train in steps * 3:
            watch.session_run(session, train, {x: np.ones([2, 3])})
    assert [list(watch._session_runs.built.statistics) for watch, _, _ in steps] == [
        ["one/moving_mean"],
        ["other/moving_mean"],
    ]
