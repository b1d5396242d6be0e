"""The traces of a step: which graph is whose step, what comes before what, and what waits for a guard."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.guard.guard import FunctionGuard
from tb_nanwatch.watch.guard.state import keep_state
from tb_nanwatch.watch.guard.trace import Traces
from tb_nanwatch.watch.record.ring import DeviceRing

ALLOWED = tf.constant(True)


def current_graph():
    return tf.compat.v1.get_default_graph()


def traced(body, *args):
    """Return what ``body`` returns of its graph while it is traced."""
    found = []
    tf.function(lambda: found.append(body(current_graph())), autograph=False).get_concrete_function(*args)
    return found[0]


@pytest.fixture
def traces():
    return Traces()


@pytest.fixture
def variable():
    return tf.Variable(1.0)


@pytest.fixture
def other():
    return tf.Variable(2.0)


class TestAnEagerStep:
    def test_of_one_update_has_no_second(self, traces, variable):
        traces.note_update(None, [variable], run=1, allowed=ALLOWED)
        assert not traces.is_second(None, [variable], run=1)

    def test_that_updates_other_variables_in_the_same_run_has_a_second(self, traces, variable, other):
        traces.note_update(None, [variable], run=1, allowed=ALLOWED)
        assert traces.is_second(None, [other], run=1)
        assert not traces.is_second(None, [other], run=2)
        assert traces.allowed_before(None) is ALLOWED

    def test_outside_of_any_run_has_no_second(self, traces, variable, other):
        traces.note_update(None, [variable], run=0, allowed=ALLOWED)
        assert not traces.is_second(None, [other], run=0)

    def test_whose_start_is_known_may_update_a_variable_twice(self, traces, variable):
        traces.begin_eager()
        assert traces.allows_repeated_updates(None)
        assert not traces.is_second(None, [variable], run=1)
        traces.note_update(None, [variable], run=1, allowed=ALLOWED)
        assert traces.is_second(None, [variable], run=1)
        traces.begin_eager()
        assert not traces.is_second(None, [variable], run=1)


class TestATracedStep:
    def test_has_a_second_update_after_the_first(self, traces, variable, other):
        def body(graph):
            before = traces.is_second(graph, [variable], run=1)
            traces.note_update(graph, [variable], run=1, allowed=(allowed := tf.constant(True)))
            return before, traces.is_second(graph, [other], run=1), traces.allowed_before(graph) is allowed

        assert traced(body) == (False, True, True)

    def test_does_not_see_an_update_of_another_step(self, traces, variable):
        def body(graph):
            is_second = traces.is_second(graph, [variable], run=1)
            traces.note_update(graph, [variable], run=1, allowed=tf.constant(True))
            return is_second

        assert [traced(body), traced(body)] == [False, False]

    def test_gives_a_branch_what_the_update_outside_of_it_was_allowed(self, traces, variable):
        def body(graph):
            traces.begin(graph, can_begin_again=False)
            traces.note_update(graph, [variable], run=1, allowed=(allowed := tf.constant(True)))
            found = []

            def branch():
                found.append(traces.allowed_before(current_graph()) is allowed)
                return tf.constant(0)

            tf.cond(tf.constant(True) & allowed, branch, lambda: tf.constant(1))
            return found

        assert traced(body) == [True]

    @pytest.mark.parametrize("is_lenient", [False, True])
    def test_may_not_update_a_variable_inside_and_outside_of_a_function(self, traces, variable, is_lenient):
        def body(graph):
            traces.begin(graph, can_begin_again=False)
            if is_lenient:
                traces.allow_repeated_updates(graph)

            @tf.function
            def inner():
                traces.note_update(current_graph(), [variable], run=1, allowed=tf.constant(True))

            inner()
            return traces.is_second(graph, [variable], run=1)

        if is_lenient:
            assert traced(body)
        else:
            with pytest.raises(SetupError, match="got one inside and one outside"):
                traced(body)

    def test_is_the_step_of_its_branches_and_functions(self, traces):
        def body(graph):
            traces.begin(graph, can_begin_again=False)
            found = []

            @tf.function
            def inner():
                found.append(traces.step_of(current_graph()) is graph)

            inner()
            return found

        assert traced(body) == [True]

    def test_can_be_given_up_only_if_its_caller_says_so(self, traces):
        def body(can_begin_again):
            def step(graph):
                traces.begin(graph, can_begin_again=can_begin_again)
                return traces.can_begin_again(graph)

            return step

        assert [traced(body(True)), traced(body(False)), traced(traces.can_begin_again)] == [True, False, False]

    def test_that_made_variables_is_traced_again_and_cannot_be_given_up(self, traces):
        found, made = [], []

        @tf.function
        def step():
            graph = current_graph()
            traces.begin(graph, can_begin_again=True)
            if not made:
                made.append(tf.Variable(1.0))
            found.append((traces.is_traced_again(graph), traces.can_begin_again(graph)))

        step()
        assert found == [(True, False), (False, True)]

    def test_that_is_dropped_takes_the_layout_that_it_fixed_along(self, traces, variable):
        found, made = [], []

        @tf.function
        def step():
            graph = current_graph()
            found.append((traces.is_layout_dropped(graph), traces.is_second(graph, [variable], run=1)))
            if not made:
                made.append(tf.Variable(1.0))
            traces.note_layout(graph)
            traces.note_update(graph, [variable], run=1, allowed=tf.constant(True))

        step()
        assert found == [(False, False), (True, False)]

    def test_that_makes_variables_keeps_its_layout_to_its_end(self, traces):
        found, made = [], []

        @tf.function
        def step():
            graph = current_graph()
            if not made:
                made.append(tf.Variable(1.0))
            traces.note_layout(graph)
            found.append(traces.is_layout_dropped(graph))

        step()
        assert found == [False, False]

    def test_knows_of_no_update_after_they_are_forgotten(self, traces, variable):
        def body(graph):
            traces.note_update(graph, [variable], run=1, allowed=tf.constant(True))
            traces.forget_updates()
            return traces.is_second(graph, [variable], run=1), traces.allowed_before(graph)

        assert traced(body) == (False, None)

    def test_has_all_micro_batches_if_it_measures_any(self, traces):
        def body(graph):
            before = traces.has_all_microbatches(graph)
            traces.note_accumulation(graph, is_first := tf.constant(True))
            traces.note_accumulation(graph, tf.constant(False))
            return before, traces.has_all_microbatches(graph) is is_first

        assert traced(body) == (False, True)


class TestAGuard:
    @pytest.fixture
    def state(self):
        return tf.Variable(0.0, trainable=False)

    def step(self, traces, kind, state, *, is_begun=True):
        """Return a step that is guarded and assigns ``state`` afterwards; it takes whether it is good."""
        ring = DeviceRing(window=4, cells=1)

        @tf.function
        def step(is_good):
            graph = current_graph()
            if is_begun:
                traces.begin(graph, can_begin_again=False)
            guard, since = FunctionGuard(kind, ring, keep_state(graph)), traces.size_of(graph)
            allowed = tf.identity(is_good)
            if kind == "stop":
                with tf.control_dependencies([tf.raw_ops.Assert(condition=is_good, data=["bad"])]):
                    allowed = tf.identity(is_good)
            traces.note_guard(graph, allowed, guard, since=since)
            state.assign_add(1.0)
            traces.finish(graph)

        return step

    def assignment(self, step):
        graph = step.get_concrete_function(tf.constant(True)).graph
        (found,) = [op for op in graph.get_operations() if op.type == "AssignAddVariableOp"]
        return found

    def test_that_stops_is_waited_for_by_what_comes_after_it(self, traces, state):
        inputs = self.assignment(self.step(traces, "stop", state)).control_inputs
        assert "Identity" in [op.type for op in inputs]

    @pytest.mark.parametrize("kind", ["latch", "skip"])
    def test_that_withholds_has_what_comes_after_it_undone(self, traces, state, kind):
        step = self.step(traces, kind, state)
        step(tf.constant(False))
        assert state.numpy() == 0.0
        step(tf.constant(True))
        assert state.numpy() == 1.0

    @pytest.mark.parametrize(("kind", "is_begun"), [("none", True), ("skip", False)])
    def test_that_lets_through_or_is_of_no_known_step_changes_nothing(self, traces, state, kind, is_begun):
        self.step(traces, kind, state, is_begun=is_begun)(tf.constant(False))
        assert state.numpy() == 1.0

    def test_inside_a_function_is_waited_for_by_waiting_for_that(self, traces, state):
        ring = DeviceRing(window=4, cells=1)

        @tf.function
        def inner(is_good):
            graph = current_graph()
            traces.note_guard(graph, is_good, FunctionGuard("stop", ring, []), since=traces.size_of(graph))
            return tf.identity(is_good)

        @tf.function
        def step(is_good):
            traces.begin(current_graph(), can_begin_again=False)
            inner(is_good)
            state.assign_add(1.0)
            traces.finish(current_graph())

        inputs = self.assignment(step).control_inputs
        assert [op.type for op in inputs] in (["PartitionedCall"], ["StatefulPartitionedCall"])
