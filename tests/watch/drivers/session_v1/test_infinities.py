"""Infinities that variables of a session begin with raise no alarm; a NaN, and values that they make bad, do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchHook, NonFiniteError, Watch
from tests.watch.drivers.session_v1.graphs import v1


@pytest.fixture(params=[True, False], ids=["resource", "reference"])
def use_resource(request):
    return request.param


class Lowest:
    """A layer that keeps the lowest loss in a variable; the run waits for that write."""

    def __init__(self, watch, *, use_resource=True, initial=np.inf, low=tf.minimum, reads=False):
        self.x = v1.placeholder(tf.float32, [None, 4], name="x")
        with v1.variable_scope("layer", use_resource=use_resource):
            kernel = v1.get_variable("kernel", [4, 1], initializer=v1.constant_initializer(0.5))
            start = v1.constant_initializer(initial)
            self.low = v1.get_variable("low", [], initializer=start, trainable=False)
        loss = tf.reduce_mean(tf.square(self.x @ kernel - 3))
        written = v1.assign(self.low, low(self.low, loss))
        loss = tf.minimum(loss, self.low) if reads else loss
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        with tf.control_dependencies([written]):
            self.train = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss, [kernel]), loss=loss)

    def run(self, watch, session, steps=4):
        for _ in range(steps):
            watch.session_run(session, self.train, {self.x: np.ones([2, 4], np.float32)})


def started(session):
    session.run(v1.global_variables_initializer())
    return session


LOWS = {
    "kept": lambda low, _: low + 0.0,
    "lowest": tf.minimum,
    "reset": lambda low, loss: tf.where(tf.math.is_inf(low), loss, np.inf),
}


@pytest.mark.parametrize("policy", ["raise", "skip", "record"])
@pytest.mark.parametrize("low", LOWS)
@pytest.mark.parametrize("initial", [np.inf, 0.0])
def test_a_layers_state_may_be_infinite(tmp_path, read, use_resource, policy, low, initial):
    watch = Watch(tmp_path, policy=policy)
    net = Lowest(watch, use_resource=use_resource, initial=initial, low=LOWS[low])
    with watch, v1.Session() as session:
        net.run(watch, started(session))
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen, verdict.skipped_steps) == ("finite", 4, 0)


def test_state_that_the_loss_reads_may_be_infinite_if_it_began_so(tmp_path, read):
    watch = Watch(tmp_path)
    net = Lowest(watch, reads=True, low=lambda low, _: low + 0.0)
    with watch, v1.Session() as session:
        net.run(watch, started(session))
    assert read(tmp_path).verdict.status == "finite"


def test_state_that_the_loss_reads_alarms_where_it_began_finite(tmp_path):
    watch = Watch(tmp_path, replay=False)
    net = Lowest(watch, reads=True, low=lambda low, _: low + 1.0)
    with watch, v1.Session() as session:
        # As from a checkpoint: what the initializer says is not what watching begins with.
        net.low.load(3e38, started(session))
        net.run(watch, session, steps=1)
        net.low.load(np.inf, session)
        with pytest.raises(NonFiniteError, match=r"^Step 1: \+Inf was in .*layer/low"):
            net.run(watch, session)


def test_a_nan_in_the_state_alarms(tmp_path):
    watch = Watch(tmp_path)
    net = Lowest(watch, initial=np.nan)
    with watch, v1.Session() as session, pytest.raises(NonFiniteError, match=r"^Step 0: NaN was in layer/low"):
        net.run(watch, started(session))


class Transitions:
    """Scores, one of them forbidden by -Inf."""

    def __init__(self, watch, *, use_resource=True):
        self.x = v1.placeholder_with_default(0.0, [], name="x")
        with v1.variable_scope("crf", use_resource=use_resource):
            initial = v1.constant_initializer(np.array([[0.5, -np.inf], [0.1, 0.2]]))
            self.scores = v1.get_variable("transitions", [2, 2], initializer=initial)
        loss = tf.reduce_sum(tf.square(tf.nn.softmax(self.scores, axis=1)))
        loss += tf.where(self.x > 0, tf.reduce_sum(self.scores), 0.0)
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        self.train = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss, [self.scores]), loss=loss)


NOTE = "tb_nanwatch takes the Inf in 1 of 4 elements of 'crf/transitions' as intended: it was there as watching began"


@pytest.mark.filterwarnings("ignore:tb_nanwatch takes the Inf")
class TestForbidden:
    def test_a_trained_variable_that_holds_it_is_noted_once(self, tmp_path, read, use_resource):
        watch = Watch(tmp_path)
        net = Transitions(watch, use_resource=use_resource)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with watch, v1.Session() as session:
                started(session)
                for _ in range(4):
                    watch.session_run(session, tf.group(net.train))
                watch.close()
        assert [str(warning.message) for warning in caught if "tb_nanwatch" in str(warning.message)] == [NOTE]
        back = read(tmp_path)
        assert (back.verdict.status, back.verdict.steps_seen) == ("finite", 4)
        assert back.column("weight_norm")[0, 0] == pytest.approx(np.sqrt(0.3), rel=1e-6)

    @pytest.mark.parametrize("at_close", [False, True])
    @pytest.mark.parametrize("scores", [[[np.inf, -np.inf], [0, 0]], [[0, np.nan], [0, 0]]])
    def test_anything_else_bad_in_it_alarms(self, tmp_path, scores, at_close):
        watch = Watch(tmp_path, replay=False)
        net = Transitions(watch)
        with v1.Session() as session:
            started(session)
            watch.session_run(session, net.train)
            net.scores.load(np.array(scores, np.float32), session)
            with pytest.raises(NonFiniteError, match=r"in the variable crf/transitions, .*1 of 4 elements"):
                watch.close() if at_close else watch.session_run(session, net.train)

    def test_what_it_makes_bad_alarms(self, tmp_path):
        watch = Watch(tmp_path)
        net = Transitions(watch)
        with watch, v1.Session() as session:
            started(session)
            watch.session_run(session, net.train)
            message = (
                r"^Step 0: -Inf was in the variable crf/transitions already when .*The update of step 1 was withheld"
            )
            with pytest.raises(NonFiniteError, match=message):
                watch.session_run(session, net.train, {net.x: 1.0})

    @pytest.mark.parametrize("by_hook", [True, False])
    def test_a_monitored_session_runs_nothing_else_for_it(self, tmp_path, read, by_hook):
        class Counts(v1.train.SessionRunHook):
            runs = 0

            def before_run(self, _):
                self.runs += 1

        watch, counts = Watch(tmp_path), Counts()
        net = Transitions(watch)
        hooks = [counts, *([NanWatchHook(watch)] if by_hook else [])]
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for _ in range(3):
                session.run(net.train) if by_hook else watch.session_run(session, net.train)
            assert counts.runs == 3
            if not by_hook:
                watch.close()
        assert read(tmp_path).verdict.steps_seen == 3
        assert read(tmp_path).verdict.status == "finite"
