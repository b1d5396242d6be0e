"""The guard: which updates it withholds, what it puts back and what it leaves for the host."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.watch.guard.guard import MESSAGE, FunctionGuard, hold_arithmetic_back, hold_back
from tb_nanwatch.watch.guard.state import keep_state
from tb_nanwatch.watch.record.ring import DeviceRing
from tb_nanwatch.watch.row.cells import StepTensors
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.observation import StepObservation

BAD = float("nan")
HUGE = 1e30
"""It is finite in float32 and its square is not."""


class Step:
    """A step with one gradient and one scalar variable, whose forward pass counts the steps."""

    def __init__(self, kind, *, scale=None, before=None, is_whole=None, is_more=False):
        self.ring = DeviceRing(window=4, cells=2 if scale is None else 3)
        self.weight, self.forward = tf.Variable(0.0), tf.Variable(0.0, trainable=False)
        self.kind, self.scale, self.before, self.is_whole, self.is_more = kind, scale, before, is_whole, is_more
        self.kept_batches = tf.Variable(0)
        self.run = tf.function(self._run)

    def _run(self, gradient):
        self.forward.assign_add(1.0)
        guard = FunctionGuard(
            self.kind,
            self.ring,
            keep_state(tf.compat.v1.get_default_graph(), only={id(self.forward.handle)}),
            after=None if self.before is None else tf.constant(self.before),
            is_more=self.is_more,
            is_whole=None if self.is_whole is None else tf.constant(self.is_whole),
            keep_batch=self._keep_batch,
        )
        scale = None if self.scale is None else tf.constant(self.scale)
        observation = StepObservation(StepTensors([gradient], None, [self.weight.read_value()], [], None, scale=scale))
        allowed = guard.observe(observation, None)
        guard.apply(allowed, lambda: self.weight.assign_add(1.0))
        return allowed

    def _keep_batch(self, is_quiet):
        return self.kept_batches.assign_add(tf.cast(is_quiet, tf.int32), read_value=True)

    def take(self, *gradients):
        return [bool(self.run(tf.constant(gradient))) for gradient in gradients]

    @property
    def state(self):
        return self.weight.numpy(), self.forward.numpy()

    def row(self, number):
        (row,), _ = self.ring.rows(number, number + 1)
        return row.tolist()


@pytest.mark.parametrize("kind", ["stop", "latch", "skip", "none"])
def test_a_good_step_is_recorded_and_updates(kind):
    step = Step(kind)
    assert step.take(2.0) == [True]
    assert step.state == (1.0, 1.0)
    assert (step.ring.rows_written(), step.ring.incident(), step.row(0)) == (1, None, [2.0, 0.0])


def test_a_step_that_stops_fails_before_its_update_and_puts_its_state_back():
    step = Step("stop")
    step.take(2.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=MESSAGE):
        step.take(BAD)
    assert step.state == (1.0, 1.0)
    assert (step.ring.rows_written(), step.ring.incident()) == (2, 1)
    assert np.isnan(step.row(1)[0])


def test_a_latch_withholds_every_update_until_the_host_has_read_the_incident():
    step = Step("latch")
    assert step.take(2.0, BAD, 2.0) == [True, False, False]
    assert step.state == (1.0, 1.0)
    step.ring.forget_incident()
    assert step.take(2.0) == [True]
    assert step.state == (2.0, 2.0)


def test_a_skip_withholds_one_update_and_its_state():
    step = Step("skip")
    assert step.take(2.0, BAD, 2.0) == [True, False, True]
    assert step.state == (2.0, 2.0)
    assert step.ring.incident() == 1


def test_a_step_that_is_only_recorded_updates_and_keeps_its_state():
    step = Step("none")
    assert step.take(2.0, BAD) == [True, False]
    assert step.state == (2.0, 2.0)
    assert step.ring.incident() == 1


def test_a_skip_keeps_what_this_run_changed_where_micro_batches_of_other_runs_count():
    step = Step("skip", is_whole=False)
    step.take(BAD)
    assert step.state == (0.0, 1.0)


def test_a_skip_puts_back_what_this_run_changed_where_it_had_all_micro_batches():
    step = Step("skip", is_whole=True)
    step.take(BAD)
    assert step.state == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["latch", "skip"])
def test_an_update_is_withheld_with_the_one_before_it(kind):
    step = Step(kind, before=False)
    assert step.take(2.0) == [False]
    assert step.state == (0.0, 0.0)


def test_a_second_optimizer_adds_to_the_row_of_the_first():
    step = Step("skip", is_more=True)
    step.ring._count.assign(1)
    step.take(2.0)
    assert (step.ring.rows_written(), step.row(0)) == (1, [2.0, 0.0])


def test_finite_values_whose_squares_overflow_are_no_incident():
    step = Step("stop")
    assert step.take(HUGE) == [True]
    assert step.ring.incident() is None
    np.testing.assert_allclose(step.row(0), [-HUGE, 0.0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["stop", "latch", "skip", "none"])
def test_gradients_that_overflow_for_their_scale_are_no_incident(kind):
    step = Step(kind, scale=8.0)
    assert step.take(float("inf")) == [True]
    assert step.ring.incident() is None
    assert step.row(0) == [ABSENT, 0.0, -8.0]


def test_gradients_that_are_bad_at_a_scale_of_1_are_an_incident():
    step = Step("skip", scale=1.0)
    assert step.take(BAD) == [False]
    assert step.ring.incident() == 0


def test_the_incident_counts_what_is_bad_in_each_tensor():
    step = Step("none")
    step.take(BAD)
    assert step.ring.incident_counts().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]


def test_the_incident_that_waits_is_not_replaced_and_its_batch_neither():
    step = Step("skip")
    step.take(2.0, BAD, BAD)
    assert (step.ring.incident(), step.kept_batches.numpy()) == (1, 1)


def test_what_the_update_returns_is_passed_on_where_the_guard_does_not_branch():
    ring = DeviceRing(window=4, cells=1)
    returned = {
        kind: FunctionGuard(kind, ring, []).apply(tf.constant(True), lambda: "result")
        for kind in ("stop", "latch", "skip", "none")
    }
    assert returned == {"stop": "result", "latch": None, "skip": None, "none": "result"}


def test_an_assignment_that_is_held_back_waits_for_the_guard_and_a_read_does_not():
    graph = tf.Graph()
    with graph.as_default():
        guard, value = tf.no_op(), tf.constant(1.0)
        resource = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])
        assignment = tf.raw_ops.AssignVariableOp(resource=resource, value=value)
        read = tf.raw_ops.ReadVariableOp(resource=resource, dtype=tf.float32)
        hold_back([assignment, read.op], until=guard)
    assert guard in assignment.control_inputs
    assert guard not in read.op.control_inputs


def test_the_first_arithmetic_on_gradients_waits_for_the_guard():
    graph = tf.Graph()
    with graph.as_default():
        gradient = tf.compat.v1.placeholder(tf.float32, [])
        guard = tf.no_op()
        before = len(graph.get_operations())
        square = tf.square(gradient)
        more = tf.square(square)
        hold_arithmetic_back(graph.get_operations()[before:], until=guard)
    assert (guard in square.op.control_inputs, guard in more.op.control_inputs) == (True, False)


@pytest.mark.parametrize(("is_clipped", "waits"), [(False, True), (True, False)])
def test_arithmetic_on_clipped_gradients_does_not_wait(is_clipped, waits):
    ring, found = DeviceRing(window=4, cells=1), []

    @tf.function
    def step(gradient):
        guard = FunctionGuard("stop", ring, [], is_clipped=is_clipped)
        observation = StepObservation(StepTensors([gradient], None, weights=(), watched=(), loss=None))
        allowed = guard.observe(observation, None)
        guard.apply(allowed, lambda: found.append(tf.square(gradient)))
        return allowed

    step.get_concrete_function(tf.constant(1.0))
    assert bool(list(found[0].op.control_inputs)) == waits


@pytest.mark.parametrize(("kind", "waits"), [("stop", True), ("none", False)])
def test_a_write_waits_for_a_guard_that_stops_and_for_no_guard_that_only_records(kind, waits):
    step = Step(kind)
    graph = step.run.get_concrete_function(tf.constant(1.0)).graph
    handle = next(inner for outer, inner in graph.captures if outer is step.weight.handle)
    (assignment,) = [op for op in graph.get_operations() if op.type == "AssignAddVariableOp" and op.inputs[0] is handle]
    others = [op for op in assignment.control_inputs if op.type != "ReadVariableOp"]
    assert bool(others) == waits
