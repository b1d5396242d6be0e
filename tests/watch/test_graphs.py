"""Graphs: which encloses which, and what an operation depends on."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.watch.graphs import (
    ancestors,
    captured_handles,
    creation_scopes,
    function_of,
    is_at_top,
    is_inside,
    is_session_graph,
    is_tracing_loop,
    rarely,
    with_enclosing,
)


def current_graph():
    return tf.compat.v1.get_default_graph()


def in_step(body, *, wrap):
    """Return the graph of a step, and what ``body`` returns in a branch, loop or function inside it."""
    found = []

    def noting(*_):
        found.append(body())
        return tf.constant(1.0)

    @tf.function(autograph=False)
    def step():
        wrap(noting)
        return found.append(current_graph())

    step.get_concrete_function()
    return found[-1], found[0]


def branch(body):
    tf.cond(tf.constant(1.0) > 0.0, body, lambda: tf.constant(0.0))


def loop(body):
    tf.while_loop(lambda x: x < 1.0, body, [tf.constant(0.0)])


def function(body):
    tf.function(body, autograph=False)()


def test_a_branch_runs_with_the_graphs_around_it_and_a_function_alone():
    step, enclosing = in_step(lambda: [*with_enclosing(current_graph())], wrap=branch)
    assert len(enclosing) == 2
    assert enclosing[1] is step
    for wrap in (loop, function):
        _, enclosing = in_step(lambda: [*with_enclosing(current_graph())], wrap=wrap)
        assert len(enclosing) == 1


@pytest.mark.parametrize(("wrap", "is_same"), [(branch, True), (loop, True), (function, False)])
def test_a_branch_and_a_loop_belong_to_the_function_around_them(wrap, is_same):
    step, found = in_step(lambda: function_of(current_graph()), wrap=wrap)
    assert (found is step) == is_same


@pytest.mark.parametrize("wrap", [branch, loop, function])
def test_a_branch_a_loop_and_a_function_are_inside_the_step(wrap):
    step, inner = in_step(current_graph, wrap=wrap)
    assert is_inside(inner, step)
    assert is_inside(step, step)
    assert not is_inside(step, inner)


@pytest.mark.parametrize(("wrap", "is_loop"), [(branch, False), (loop, True), (function, False)])
def test_a_loop_is_known_while_it_is_traced(wrap, is_loop):
    assert in_step(is_tracing_loop, wrap=wrap)[1] == is_loop


def test_a_creation_scope_lists_the_variables_of_the_first_trace_and_a_later_trace_has_none():
    found, made = [], []

    @tf.function
    def step():
        if not made:
            made.append(tf.Variable(1.0))
        found.append([None if scope is None else len(scope) for scope in creation_scopes(current_graph())])

    step()
    assert found == [[1], [None]]


def test_a_captured_handle_is_known_by_the_name_of_its_placeholder():
    variable = tf.Variable(1.0)

    def read():
        variable.read_value()
        return captured_handles(current_graph())

    assert [handle is variable.handle for handle in in_step(read, wrap=function)[1].values()] == [True]


class TestAncestors:
    @pytest.fixture
    def tensors(self):
        with tf.Graph().as_default():
            first = tf.constant(1.0, name="first")
            awaited = tf.constant(2.0, name="awaited")
            with tf.control_dependencies([awaited]):
                second = tf.exp(first, name="second")
            yield first, second, tf.exp(second, name="third")

    @staticmethod
    def names(operations):
        return {op.name for op in operations}

    def test_are_what_must_run_before(self, tensors):
        assert self.names(ancestors([tensors[-1]])) == {"first", "awaited", "second", "third"}

    def test_may_leave_out_control_inputs(self, tensors):
        assert self.names(ancestors([tensors[-1]], by_control=False)) == {"first", "second", "third"}

    def test_end_at_a_tensor_that_stops_them(self, tensors):
        stop = {tensors[1].name}
        assert self.names(ancestors([tensors[-1]], stop=lambda tensor: tensor.name in stop)) == {"third"}
        assert ancestors([tensors[1]], stop=lambda tensor: tensor.name in stop) == set()


def test_a_tensor_of_another_graph_is_not_at_the_top():
    with tf.Graph().as_default() as graph:
        tensor = tf.constant(1.0)
    assert is_at_top(tensor, graph)
    assert not is_at_top(tensor, tf.Graph())


def test_operations_outside_of_eager_and_function_code_are_of_a_session():
    assert not is_session_graph()
    with tf.Graph().as_default():
        assert is_session_graph()


@pytest.fixture
def conditionals_of_tensorflow_1():
    is_on = tf.compat.v1.control_flow_v2_enabled()
    tf.compat.v1.disable_control_flow_v2()
    yield
    if is_on:
        tf.compat.v1.enable_control_flow_v2()


@pytest.mark.parametrize(("condition", "result"), [(True, 1.0), (False, 2.0)])
class TestTheRareBranch:
    def test_is_one_operation_that_tensorflow_does_not_lower(self, condition, result):
        @tf.function
        def step(condition):
            return rarely(condition, lambda: (tf.constant(1.0), condition), lambda: (tf.constant(2.0), condition))[0]

        assert step(tf.constant(condition)).numpy() == result
        operations = step.get_concrete_function(tf.constant(condition)).graph.get_operations()
        (conditional,) = [op for op in operations if op.type in ("If", "StatelessIf")]
        assert conditional.get_attr("_lower_using_switch_merge") is False

    @pytest.mark.usefixtures("conditionals_of_tensorflow_1")
    def test_is_one_operation_in_a_sessions_graph_too(self, condition, result):
        with tf.Graph().as_default() as graph:
            first, _ = rarely(
                tf.constant(condition),
                lambda: (tf.constant(1.0), tf.constant(True)),
                lambda: (tf.constant(2.0), tf.constant(False)),
            )
            (conditional,) = [op for op in graph.get_operations() if op.type in ("If", "StatelessIf")]
            assert conditional.get_attr("_lower_using_switch_merge") is False
            with tf.compat.v1.Session() as session:
                assert session.run(first) == result

    def test_runs_at_once_in_an_eager_step(self, condition, result):
        first, _ = rarely(tf.constant(condition), lambda: (tf.constant(1.0), 0), lambda: (tf.constant(2.0), 0))
        assert first.numpy() == result
