"""State that a step assigns: its value is kept from before the step and put back."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.watch.guard.state import (
    keep_state,
    restore_if,
    undo_unless,
    writes_variables,
)
from tb_nanwatch.watch.variables import dtype_of, is_variable, writes

WRITES = ("AssignVariableOp", "AssignAddVariableOp")


@pytest.fixture
def total():
    return tf.Variable(1.0, trainable=False, name="total")


def current_graph():
    return tf.compat.v1.get_default_graph()


def restore(kept):
    with tf.control_dependencies([state.restore() for state in kept]):
        return tf.constant(0)


def operations_of(function, *types):
    return [op for op in function.get_concrete_function().graph.get_operations() if op.type in types]


def test_a_variable_that_the_step_assigns_gets_its_first_value_back(total):
    @tf.function
    def step():
        total.assign(5.0)
        return restore(keep_state(current_graph()))

    step()
    assert total.numpy() == 1.0


def test_a_variable_that_is_assigned_twice_gets_the_value_from_before_the_first_assignment_back(total):
    @tf.function
    def step():
        total.assign_add(5.0)
        total.assign_add(5.0)
        return restore(keep_state(current_graph()))

    step()
    assert total.numpy() == 1.0


def test_every_assignment_waits_for_the_read_that_keeps_the_value_and_the_read_waits_for_nothing(total):
    reads = []

    @tf.function
    def step():
        total.assign_add(5.0)
        total.assign_add(5.0)
        reads.extend(state.value.op for state in keep_state(current_graph()))

    assignments = operations_of(step, *WRITES)
    (read,) = reads
    assert len(assignments) == 2
    assert all(read in assignment.control_inputs for assignment in assignments)
    assert list(read.control_inputs) == []


def test_the_read_does_not_wait_for_what_the_user_makes_the_update_wait_for(total):
    reads = []

    @tf.function
    def step():
        with tf.control_dependencies([total.assign_add(5.0)]):
            reads.extend(state.value.op for state in keep_state(current_graph()))

    operations_of(step)
    assert list(reads[0].control_inputs) == []


def test_in_a_branch_the_value_from_before_an_assignment_outside_of_it_is_put_back(total):
    inner = tf.Variable(2.0, trainable=False)

    @tf.function
    def step(condition):
        total.assign_add(5.0)

        def branch():
            inner.assign_add(5.0)
            total.assign_add(5.0)
            return restore(keep_state(current_graph()))

        return tf.cond(condition, branch, lambda: tf.constant(1))

    step(tf.constant(True))
    assert (total.numpy(), inner.numpy()) == (1.0, 2.0)


def test_only_the_variables_in_question_are_kept(total):
    other = tf.Variable(2.0, trainable=False)
    kept = {}

    @tf.function
    def step():
        total.assign_add(5.0)
        other.assign_add(5.0)
        graph = current_graph()
        kept["only"] = [id(state.handle) for state in keep_state(graph, only={id(other.handle)})]
        kept["excluded"] = [id(state.handle) for state in keep_state(graph, excluded={id(other.handle)})]

    step()
    assert kept == {"only": [id(other.handle)], "excluded": [id(total.handle)]}


def test_a_variable_that_is_only_read_is_not_kept(total):
    kept = []

    @tf.function
    def step():
        kept.extend(keep_state(current_graph()))
        return total + 1.0

    step()
    assert kept == []


def test_the_place_of_an_iterator_is_not_kept(total):
    iterator = iter(tf.data.Dataset.range(3))
    kept, found = [], []

    @tf.function
    def step():
        next(iterator)
        kept.extend(keep_state(current_graph()))
        found.extend([writes_variables(current_graph()), [*writes(current_graph().get_operations())] != []])

    step()
    assert kept == []
    assert found == [False, True]


def test_an_eager_step_keeps_nothing():
    assert keep_state(tf.Graph()) == []


def test_only_a_variable_has_a_dtype_of_its_own(total):
    iterator = iter(tf.data.Dataset.range(3))
    assert (dtype_of(total.handle), is_variable(total.handle)) == (tf.float32, True)
    assert (dtype_of(iterator._iterator_resource), is_variable(iterator._iterator_resource)) == (None, False)


@pytest.mark.parametrize("is_allowed", [True, False])
def test_what_is_assigned_after_the_guard_is_undone_unless_the_update_is_allowed(total, is_allowed):
    later = tf.Variable(2.0, trainable=False)

    @tf.function
    def step(allowed):
        graph = current_graph()
        total.assign_add(5.0)
        kept = keep_state(graph)
        before = len(graph.get_operations())
        total.assign_add(5.0)
        later.assign_add(5.0)
        undo_unless(allowed, graph, graph.get_operations()[before:], before=kept)

    step(tf.constant(is_allowed))
    assert [total.numpy(), later.numpy()] == ([11.0, 7.0] if is_allowed else [1.0, 2.0])


def test_undoing_waits_for_the_assignments_and_uses_the_value_that_the_guard_kept(total):
    @tf.function
    def step():
        graph = current_graph()
        total.assign_add(5.0)
        kept = keep_state(graph)
        before = len(graph.get_operations())
        total.assign_add(5.0)
        undo_unless(tf.constant(False), graph, graph.get_operations()[before:], before=kept)

    (undoing,) = operations_of(step, "If", "StatelessIf")
    assert operations_of(step, *WRITES)[1] in undoing.control_inputs
    assert len(operations_of(step, "ReadVariableOp")) == 1


def test_undoing_leaves_alone_what_only_the_guard_puts_back(total):
    later = tf.Variable(2.0, trainable=False)

    @tf.function
    def step():
        graph = current_graph()
        total.assign_add(5.0)
        kept = keep_state(graph)
        before = len(graph.get_operations())
        later.assign_add(5.0)
        undo_unless(tf.constant(False), graph, graph.get_operations()[before:], before=kept)

    step()
    assert [total.numpy(), later.numpy()] == [6.0, 2.0]


@pytest.mark.parametrize(("condition", "left"), [(True, 1.0), (False, 6.0)])
def test_state_is_put_back_where_the_condition_holds(total, condition, left):
    @tf.function
    def step(condition):
        total.assign_add(5.0)
        restore_if(condition, keep_state(current_graph()))

    step(tf.constant(condition))
    assert total.numpy() == left
