"""Variables: which variable a tensor stands for, what writes it and in which order the variables are used."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tb_nanwatch.watch.variables import (
    backward_order,
    device_variable,
    dtype_of,
    handle_of,
    handles_here,
    is_used_by,
    is_variable,
    key_of,
    name_of,
    read_first,
    source_behind,
    variable_writes,
    writes,
)

v1 = tf.compat.v1


def current_graph():
    return v1.get_default_graph()


def traced(body):
    """Return what ``body`` returns while it is traced as a function."""
    found = []
    tf.function(lambda: found.append(body()), autograph=False).get_concrete_function()
    return found[0]


@pytest.fixture
def graph():
    """The graph of a session."""
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture(params=[True, False], ids=["resource", "reference"])
def in_session(graph, request):
    """A variable of a session's graph."""
    return v1.get_variable("layer/w", [2], use_resource=request.param)


def capture_of(variable):
    """Return the placeholder that stands for a variable in the function that is traced."""
    variable.read_value()
    return next(inner for outer, inner in current_graph().captures if outer is variable.handle)


class TestAnEagerVariable:
    def test_has_the_name_and_dtype_of_its_handle(self):
        handle = handle_of(tf.Variable(1.0, name="layer/w"))
        assert (name_of(handle), dtype_of(handle), is_variable(handle)) == ("layer/w", tf.float32, True)

    def test_of_keras_has_the_handle_of_its_value(self):
        variable = keras.Variable(1.0, name="w")
        assert handle_of(variable) is variable.value.handle

    def test_of_many_replicas_has_the_handle_of_the_first(self):
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            variable = tf.Variable(1.0)
        assert handle_of(variable) is variable.values[0].handle

    def test_of_many_replicas_is_assigned_by_a_replica_in_its_own_copy_and_elsewhere_in_all(self):
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            variable = tf.Variable(1.0)
        (copy,) = variable.values
        assert [handle is copy.handle for handle in handles_here(variable)] == [True]
        found = []
        strategy.run(lambda: found.extend(handles_here(variable)))
        assert [handle is copy.handle for handle in found] == [True]

    def test_is_its_own_source(self):
        handle = tf.Variable(1.0).handle
        assert source_behind(handle) is handle


def test_another_resource_is_no_variable():
    resource = iter(tf.data.Dataset.range(3))._iterator_resource
    assert (dtype_of(resource), is_variable(resource)) == (None, False)


class TestAPlaceholderInAFunction:
    def test_stands_for_the_eager_handle(self):
        variable = tf.Variable(1.0)
        placeholder = traced(lambda: capture_of(variable))
        assert placeholder is not variable.handle
        assert source_behind(placeholder) is variable.handle
        assert key_of(placeholder) == key_of(variable.handle) != key_of(tf.Variable(1.0).handle)

    def test_of_a_branch_stands_for_the_eager_handle_too(self):
        variable, found = tf.Variable(1.0), []

        def body():
            def branch():
                found.append(capture_of(variable))
                return tf.constant(0)

            tf.cond(tf.constant(1.0) > 0.0, branch, lambda: tf.constant(1))

        traced(body)
        assert source_behind(found[0]) is variable.handle


class TestAVariableOfASession:
    def test_has_a_handle_with_its_name_and_dtype(self, in_session):
        handle = handle_of(in_session)
        assert (name_of(handle), dtype_of(handle), is_variable(handle)) == ("layer/w", tf.float32, True)

    def test_is_found_behind_operations_that_pass_it_on(self, graph):
        handle = handle_of(v1.get_variable("w", [], use_resource=True))
        passed = tf.raw_ops.Switch(data=handle, pred=tf.constant(True)).output_true
        assert source_behind(passed) is handle
        assert key_of(passed) == key_of(handle) == "w"

    def test_is_not_an_assignment_to_it(self, graph):
        variable = v1.get_variable("w", [], use_resource=False)
        assert not is_variable(tf.raw_ops.Assign(ref=handle_of(variable), value=1.0))


class TestWrites:
    def test_of_a_function_name_the_placeholder_and_its_variable(self):
        variable = tf.Variable(1.0)

        def body():
            placeholder = capture_of(variable)
            variable.assign_add(1.0)
            operations = current_graph().get_operations()
            return placeholder, [*writes(operations)], [*variable_writes(operations)]

        placeholder, raw, sources = traced(body)
        assert [(op.type, tensor is placeholder) for op, tensor in raw] == [("AssignAddVariableOp", True)]
        assert [handle is variable.handle for _, handle in sources] == [True]

    def test_of_a_session_name_the_variable(self, in_session):
        in_session.assign([1.0, 2.0])
        assert [*variable_writes([tf.identity(in_session).op])] == []
        assigns = [op for op in current_graph().get_operations() if op.type.startswith("Assign")]
        found = [*variable_writes(assigns)]
        assert [op for op, _ in found] == assigns != []
        assert all(handle is handle_of(in_session) for _, handle in found)

    def test_do_not_include_an_operation_that_takes_a_reference_as_a_value(self, graph):
        variable = v1.get_variable("w", [], use_resource=False)
        assert [*writes([tf.raw_ops.Identity(input=handle_of(variable)).op])] == []

    def test_of_another_resource_are_no_writes_of_a_variable(self):
        iterator = iter(tf.data.Dataset.range(3))

        def body():
            next(iterator)
            operations = current_graph().get_operations()
            return len([*writes(operations)]), [*variable_writes(operations)]

        assert traced(body) == (1, [])


class TestTheBackwardOrder:
    def test_of_a_function_is_the_reverse_of_the_first_reads(self):
        first, second, unused = tf.Variable(1.0), tf.Variable(2.0), tf.Variable(3.0)

        def body():
            (first * 1.0 + second) * first
            return backward_order(current_graph(), [first, second, unused])

        assert traced(body) == (1, 0, None)

    def test_of_a_session_is_the_reverse_of_the_first_uses(self, graph):
        second, first, unused = (v1.get_variable(name, []) for name in ("second", "first", "unused"))
        tf.exp(first)
        tf.exp(second)
        assert backward_order(graph, [first, second, unused]) == (1, 0, None)

    def test_of_an_eager_step_is_not_known(self):
        assert backward_order(None, [tf.Variable(1.0)]) == (None,)


def test_an_operation_that_only_initializes_a_variable_does_not_use_it(in_session):
    graph = current_graph()
    before = set(graph.get_operations())
    assert not is_used_by(before, [handle_of(in_session)])
    assert is_used_by({tf.exp(in_session).op}, [handle_of(in_session)])


class TestAFirstRead:
    def test_waits_for_nothing(self, in_session):
        graph = current_graph()
        with tf.control_dependencies([tf.no_op()]):
            value = read_first(graph, handle_of(in_session))
        assert list(value.op.control_inputs) == []

    def test_of_a_reference_is_a_copy(self, graph):
        variable = v1.get_variable("w", [], use_resource=False, initializer=v1.zeros_initializer())
        value = read_first(graph, handle_of(variable))
        with tf.control_dependencies([value.op]):
            assign = variable.assign(1.0)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            assert session.run([value, assign]) == [0.0, 1.0]

    def test_in_a_function_is_not_ordered_after_an_assignment(self):
        variable = tf.Variable(1.0)

        def body():
            variable.assign(2.0)
            return read_first(current_graph(), capture_of(variable)).op

        assert list(traced(body).control_inputs) == []


def test_a_variable_of_the_watch_does_not_make_a_function_trace_again():
    traces, made = [], []

    @tf.function
    def step():
        traces.append(1)
        with tf.init_scope():
            if not made:
                made.append(device_variable(tf.constant(1.0), "own"))

    step()
    step()
    assert (len(traces), made[0].name, made[0].trainable) == (1, "nanwatch/own:0", False)
