"""The guard of a session's step: a dead pivot withholds the update, and one vector brings the step to the host."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.watch.guard.pivot import PivotGuard
from tb_nanwatch.watch.guard.state import SessionState
from tb_nanwatch.watch.row.cells import StepTensors
from tb_nanwatch.watch.row.observation import StepObservation

v1 = tf.compat.v1
BAD = float("nan")


class Step:
    """A step with one gradient, whose forward pass counts the steps before the guard, and which updates a weight."""

    def __init__(self, *, withholds=True, use_resource=True, slot=False):
        self.gradient = v1.placeholder(tf.float32, [])
        make = {"use_resource": use_resource, "initializer": v1.zeros_initializer()}
        self.weight, self.forward = v1.get_variable("weight", [], **make), v1.get_variable("forward", [], **make)
        counted = self.forward.assign_add(1.0)
        self.state = SessionState.of(v1.get_default_graph(), [counted])
        with tf.control_dependencies([counted]):
            measured = tf.identity(self.gradient)
        self.guard = PivotGuard(self.state, extra=lambda: tf.constant([7.0], tf.float64), withholds=withholds)
        observation = StepObservation(StepTensors([measured], None, weights=(), watched=(), loss=None))
        allowed = self.guard.observe(observation, tf.constant(41, tf.int64))
        self.train = self.guard.apply(allowed, self._update)
        self.session = v1.Session()
        self.session.run(v1.global_variables_initializer())

    def _update(self):
        return self.weight.assign_add(1.0)

    def take(self, gradient):
        fetches = [self.train, self.guard.fetched]
        fetched = self.session.run(fetches, {self.gradient: gradient})[1]
        return self.guard.unpack(fetched, cells=1)

    @property
    def values(self):
        return tuple(self.session.run([self.weight, self.forward]))


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "reference"])
class TestAStep:
    def test_that_is_good_updates_and_brings_its_row_alone(self, use_resource):
        step = Step(use_resource=use_resource)
        fetched = step.take(2.0)
        assert step.values == (1.0, 1.0)
        assert (fetched.step, fetched.row.tolist()) == (41, [2.0])
        assert (fetched.counts.shape, fetched.extra.tolist()) == ((0, 4), [])

    def test_that_is_bad_does_not_update_and_restores_what_its_forward_pass_wrote(self, use_resource):
        step = Step(use_resource=use_resource)
        step.take(2.0)
        fetched = step.take(BAD)
        assert step.values == (1.0, 1.0)
        assert np.isnan(fetched.row).tolist() == [True]
        assert (fetched.counts.tolist(), fetched.extra.tolist()) == ([[1, 1, 0, 0]], [7.0])

    def test_that_is_bad_updates_if_nothing_is_withheld(self, use_resource):
        step = Step(use_resource=use_resource, withholds=False)
        step.take(BAD)
        assert step.values == (1.0, 1.0)


def test_a_finite_gradient_whose_square_overflows_updates_and_brings_its_norm():
    step = Step()
    fetched = step.take(1e30)
    assert step.values == (1.0, 1.0)
    np.testing.assert_allclose(fetched.row, [-1e30], rtol=1e-6)


def test_the_first_value_of_a_slot_does_not_wait_for_the_guard():
    class WithSlot(Step):
        def _update(self):
            self.slot = v1.get_variable("slot", [], initializer=v1.ones_initializer())
            return self.weight.assign_add(self.slot)

    assert WithSlot().values == (0.0, 0.0)


class TestStateThatTheUpdateDoesNotWaitFor:
    @pytest.fixture
    def statistic(self):
        return v1.get_variable("statistic", [2], initializer=v1.ones_initializer())

    def test_comes_to_the_host_and_is_assigned_after_the_run(self, graph, statistic):
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, statistic.assign([5.0, 6.0]).op)
        state = SessionState.of(graph, [tf.constant(0.0)])
        packed = state.packed()
        assert (state.names, state.packed_size) == ({statistic.handle.name}, 2)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            values, _ = session.run([packed, graph.get_collection(v1.GraphKeys.UPDATE_OPS)])
            assert session.run(statistic).tolist() == [5.0, 6.0]
            state.restore_unordered(session, values)
            assert session.run(statistic).tolist() == [1.0, 1.0]

    def test_is_all_of_it_where_no_operation_waits_to_restore_it(self, graph, statistic):
        assign = statistic.assign([5.0, 6.0])
        state = SessionState.of(graph, [assign])
        assert ([*state.unordered], len(state.ordered)) == ([], 1)
        assert len(state.by_host().unordered) == 1
