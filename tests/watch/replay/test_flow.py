"""The data flow of a traced step: across branches, loops, functions, tensor lists and variables."""

from __future__ import annotations

import tensorflow as tf

from tests.watch.replay.probed import probed


def places(function, *arguments):
    program = probed(function, *arguments)
    return program.made_by(program.results[0])


def test_within_a_graph_a_value_comes_from_its_operation():
    program = probed(tf.exp, 0.0)
    (place,) = program.flow.places(program.results[0])
    assert (place.node.op.type, place.output, place.outside) == ("Exp", 0, None)


def test_an_output_knows_its_place_among_the_outputs_of_its_operation():
    program = probed(tf.unstack, [1.0, 2.0, 3.0])
    found = [program.flow.places(tensor) for tensor in program.results]
    assert [(place.node.op.type, place.output) for (place,) in found] == [("Unpack", 0), ("Unpack", 1), ("Unpack", 2)]


def test_an_argument_comes_from_outside():
    program = probed(lambda x, y: y, 0.0, 1.0)
    (place,) = program.flow.places(program.results[0])
    assert place.node is None
    assert place.outside.name == program.arguments()[1]


def test_a_captured_tensor_comes_from_outside():
    captured = tf.ones([2000])
    program = probed(lambda x: tf.identity_n([captured])[0], 0.0)
    (place,) = program.flow.inputs(program.op("IdentityN"))
    assert place.node is None
    assert program.value(place.outside).shape == (2000,)


def test_the_identity_of_the_probe_stands_for_the_operation_before_it():
    program = probed(tf.exp, 0.0)
    (result,) = program.results
    assert result.op.type == "Identity"
    assert program.flow.original(result).op.type == "Exp"


def test_the_result_of_a_branch_may_come_from_either_side():
    assert places(lambda x: tf.cond(x > 0.0, lambda: tf.exp(x), lambda: tf.sin(x)), 1.0) == ["Exp", "Sin"]


def test_the_result_of_a_switch_may_come_from_each_case():
    def step(x):
        return tf.switch_case(tf.cast(x, tf.int32), [lambda: tf.exp(x), lambda: tf.sin(x), lambda: tf.cos(x)])

    assert places(step, 1.0) == ["Exp", "Sin", "Cos"]


def test_an_input_of_a_branch_comes_from_what_was_handed_to_it():
    def step(x, y):
        one, other = tf.exp(x), tf.sin(y)
        return tf.cond(x > 0.0, lambda: tf.square(other), lambda: one)

    program = probed(step, 1.0, 2.0)
    assert program.given("Square") == ["Sin"]
    assert program.made_by(program.results[0]) == ["Square", "Exp"]


def test_a_branch_in_a_branch_is_crossed_in_both_directions():
    def step(x):
        outer = tf.exp(x)

        def inner():
            return tf.cond(x > 1.0, lambda: tf.sin(outer), lambda: tf.cos(outer))

        return tf.cond(x > 0.0, inner, lambda: x)

    program = probed(step, 1.0)
    assert program.made_by(program.results[0]) == ["Sin", "Cos", "outside"]
    assert program.given("Sin") == ["Exp"]


def loop(x):
    first = tf.exp(x)
    return tf.while_loop(lambda at, _: at < 3, lambda at, x: (at + 1, tf.sin(x)), (0, first))[1]


def test_the_result_of_a_loop_comes_from_its_body_or_from_what_it_was_given():
    assert places(loop, 1.0) == ["Sin", "Exp"]


def test_an_input_of_a_body_comes_from_the_round_before_or_from_what_the_loop_was_given():
    program = probed(loop, 1.0)
    assert program.given("Sin") == ["Sin", "Exp"]


def function(x):
    called = tf.function(tf.sin).get_concrete_function(tf.TensorSpec([]))
    return called(tf.exp(x))


def test_the_result_of_a_function_comes_from_the_operation_in_it():
    program = probed(function, 1.0)
    assert program.made_by(program.results[0]) == ["Sin"]


def test_an_input_of_a_function_comes_from_its_call():
    program = probed(function, 1.0)
    assert program.given("Sin") == ["Exp"]


def test_an_element_of_a_tensor_list_may_come_from_each_that_was_put_there():
    def step(x):
        stack = tf.TensorArray(tf.float32, 2, element_shape=[]).write(0, tf.exp(x)).write(1, tf.sin(x))
        return stack.read(0)

    program = probed(step, 1.0)
    (read,) = program.flow.places(program.results[0])
    held = [tensor for tensor in read.node.op.inputs if tensor.dtype == tf.variant]
    assert {kind for tensor in held for kind in program.made_by(tensor)} == {"Exp", "Sin"}


def test_one_step_back_from_a_tensor_crosses_the_boundary_that_it_stands_at():
    program = probed(function, 1.0)
    (given,) = program.op("Sin").inputs
    (outside,) = program.flow.one_back(given)
    assert program.flow.original(outside).op.type == "Exp"


def test_the_resource_of_a_variable_is_found_from_inside_a_branch():
    weight = tf.Variable(1.0)
    program = probed(lambda x: tf.cond(x > 0.0, lambda: x * weight, lambda: x), 1.0)
    resource = program.flow.resource(program.op("ReadVariableOp").inputs[0])
    assert resource.graph is program.traced.graph
    assert program.traced.fed[resource.name] is weight.handle


def writing(weight):
    def step(x):
        weight.assign(tf.exp(x))
        read = tf.identity(weight)
        tf.cond(x > 0.0, lambda: weight.assign_add(tf.sin(x)), weight.read_value)
        return read

    return step


def test_the_writers_of_a_variable_come_in_order_of_creation_from_branches_too():
    program = probed(writing(tf.Variable(1.0)), 1.0)
    resource = program.flow.resource(program.op("AssignVariableOp").inputs[0])
    assert [op.type for op in program.flow.writers(resource)] == ["AssignVariableOp", "If", "AssignAddVariableOp"]


def test_a_read_depends_on_the_writes_before_it_and_not_on_those_after():
    program = probed(writing(tf.Variable(1.0)), 1.0)
    read = program.flow.node_of(program.ops("ReadVariableOp")[0])
    assert [node.op.type for node in program.flow.sources(read)] == ["AssignVariableOp"]


def test_a_graph_knows_the_operation_of_the_root_that_runs_it():
    def step(x):
        return tf.cond(x > 0.0, lambda: tf.cond(x > 1.0, lambda: tf.sin(x), lambda: x), lambda: x)

    program = probed(step, 1.0)
    caller = program.traced.boundaries.called_from(program.op("Sin").graph)
    assert caller.type in ("If", "StatelessIf")
    assert caller.graph is program.traced.graph
    assert program.traced.boundaries.called_from(program.traced.graph) is None


def test_what_a_loop_runs_is_inside_a_loop_and_what_a_branch_runs_is_not():
    program = probed(lambda x: loop(x) + tf.cond(x > 0.0, lambda: tf.cos(x), lambda: x), 1.0)
    assert program.flow.boundaries.is_in_loop(program.op("Sin").graph)
    assert not program.flow.boundaries.is_in_loop(program.op("Cos").graph)
    assert not program.flow.boundaries.is_in_loop(program.traced.graph)


def test_what_a_branch_in_a_loop_runs_is_inside_a_loop():
    def step(x):
        def body(at, x):
            return at + 1, tf.cond(x > 0.0, lambda: tf.sin(x), lambda: x)

        return tf.while_loop(lambda at, _: at < 3, body, (0, x))[1]

    program = probed(step, 1.0)
    assert program.flow.boundaries.is_in_loop(program.op("Sin").graph)


def test_floating_tensors_behind_an_index_are_indirect():
    def step(x):
        index = tf.cast(tf.exp(x), tf.int32)
        return tf.gather(tf.sin(x) * tf.ones([8]), index)

    program = probed(step, 0.0)
    behind = program.flow.floating_behind(program.op("GatherV2"))
    assert [(tensor.op.type, is_direct) for tensor, is_direct in behind] == [("Mul", True), ("Exp", False)]


def compared(function):
    program = probed(function, 1.0)
    return [op.type for op in program.flow.compared_behind(program.op("Log"))]


def test_a_comparison_whose_outcome_is_cast_or_chosen_by_is_found():
    assert compared(lambda x: tf.math.log(tf.cast(x > 0.0, tf.float32))) == ["Greater"]
    assert compared(lambda x: tf.math.log(tf.where(x < 0.5, 1.0, 2.0))) == ["Less"]


def test_a_test_for_nan_and_arithmetic_on_an_outcome_are_no_comparisons_behind():
    assert compared(lambda x: tf.math.log(tf.cast(tf.math.is_nan(x), tf.float32))) == []
    assert compared(lambda x: tf.math.log(tf.exp(tf.cast(x > 0.0, tf.float32)))) == []


def test_an_operation_of_the_gradient_is_tensorflows_own_unless_the_users_function_made_it():
    @tf.custom_gradient
    def custom(x):
        return tf.identity(x), lambda upstream: 2.0 * tf.cos(upstream)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.exp(tf.sqrt(custom(x)))
        return tape.gradient(loss, x)

    program = probed(step, 1.0)
    assert program.flow.is_gradients_own(program.op("SqrtGrad"))
    assert not program.flow.is_gradients_own(program.op("Cos"))
    assert not program.flow.is_gradients_own(program.op("Exp"))
