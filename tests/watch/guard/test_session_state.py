"""Statistics that the forward pass of a session's step writes are restored after a bad step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchHook, NonFiniteError, Watch
from tests.watch.drivers.session_v1.graphs import EXACT, Normalised, same, v1, variables_of


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as one:
        yield one


def waiting(watch, net, optimizer):
    """Build an update that waits for the statistics."""
    with tf.control_dependencies(net.updates):
        return watch.apply_gradients(optimizer, net.pairs, loss=net.loss)


def beside(watch, net, optimizer):
    """Build an update and statistics that run in any order."""
    return tf.group([watch.apply_gradients(optimizer, net.pairs, loss=net.loss), net.updates])


@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "reference"])
@pytest.mark.parametrize("built", [waiting, beside])
class TestStatistics:
    def test_a_bad_step_leaves_them_as_they_were(self, built, use_resource, tmp_path):
        net, watch = Normalised(use_resource=use_resource), Watch(tmp_path)
        train = built(watch, net, v1.train.AdamOptimizer(0.01))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for _ in range(5):
                watch.session_run(session, train, net.feed())
            before = variables_of(session)
            with pytest.raises(NonFiniteError, match=r"^Step 5: .*first appeared"):
                watch.session_run(session, train, net.feed(poison=1e38))
            assert same(before, variables_of(session))
        assert not np.array_equal(before["layer/moving_mean:0"], np.zeros(2))

    def test_a_skipped_step_is_as_if_it_had_not_been_there(self, built, use_resource, tmp_path):
        ends = []
        for place, poisoned in enumerate((True, False)):
            with tf.Graph().as_default(), v1.Session(config=EXACT) as session:
                net, watch = Normalised(use_resource=use_resource), Watch(tmp_path / str(place), policy="skip")
                train = built(watch, net, v1.train.AdamOptimizer(0.01))
                session.run(v1.global_variables_initializer())
                for number in range(10):
                    watch.session_run(session, train, net.feed())
                    if poisoned and number in (3, 6):
                        watch.session_run(session, train, net.feed(poison=1e38))
                ends.append(variables_of(session))
        assert same(*ends)

    def test_statistics_that_alone_become_bad_are_reported(self, built, use_resource, tmp_path, read):
        net, watch = Normalised(use_resource=use_resource), Watch(tmp_path)
        # The step does not use what it writes there.
        with tf.name_scope("layer/"):
            delta = tf.math.log(tf.reduce_min(net.x)) * tf.ones([2])
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, v1.assign_sub(net.variance, delta))
        train = built(watch, net, v1.train.AdamOptimizer(0.01))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            with pytest.raises(NonFiniteError, match="Step 0"):
                watch.session_run(session, train, net.feed())
        watch.close()
        first = read(tmp_path).verdict.first
        assert (first.step, first.phase, first.layer, first.op.type) == (0, "state", "layer", "Log")


def test_a_monitored_session_restores_them_too(tmp_path):
    net, watch = Normalised(), Watch(tmp_path, policy="skip")
    v1.train.get_or_create_global_step()
    train = beside(watch, net, v1.train.AdamOptimizer(0.01))
    with v1.train.MonitoredTrainingSession(hooks=[NanWatchHook(watch)]) as session:
        session.run(train, net.feed())
        before = variables_of(session)
        session.run(train, net.feed(poison=1e38))
        assert same(before, variables_of(session))


def test_statistics_may_be_updated_without_training(tmp_path):
    net, watch = Normalised(), Watch(tmp_path)
    beside(watch, net, v1.train.AdamOptimizer(0.01))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        before = variables_of(session)
        watch.session_run(session, net.updates, net.feed())
        after = variables_of(session)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"layer/moving_mean:0", "layer/moving_variance:0"}
