"""The walk: from a non-finite value back to the operations that made it from finite inputs."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from tests.watch.replay.probed import kinds, probed

NAN = float("nan")


def origins(function, *arguments):
    """Return the types of the origins behind the function's first result."""
    program = probed(function, *arguments)
    return kinds(program.walk().back_from(program.results[0]))


def test_the_walk_passes_operations_with_bad_inputs_and_stops_at_the_first_with_finite_ones():
    assert origins(lambda x: tf.exp(tf.math.log(x) * -2.0) + 1.0, 0.0) == ["Log"]


def test_a_finite_tensor_has_no_origin():
    assert origins(tf.math.log, 1.0) == []


def test_a_bad_argument_is_an_origin_though_operations_after_it_are_bad_too():
    program = probed(lambda x, y: tf.math.log(x * y), 1.0, NAN)
    (origin,) = program.walk().back_from(program.results[0])
    assert origin.node is None
    assert origin.outside.name == program.arguments()[1]


def test_a_bad_variable_is_an_origin():
    weight = tf.Variable(NAN)
    program = probed(lambda x: x * weight, 1.0)
    (origin,) = program.walk().back_from(program.results[0])
    assert (origin.node, origin.outside.dtype) == (None, tf.resource)


def test_a_bad_constant_is_an_origin():
    assert origins(lambda x: x * NAN, 1.0) == ["Const"]


def test_a_bad_value_that_nothing_uses_is_no_origin():
    def step(x):
        tf.math.log(x)
        return tf.sqrt(x - 1.0)

    assert origins(step, 0.0) == ["Sqrt"]


def test_two_origins_come_in_the_order_of_the_inputs_that_they_reach():
    assert origins(lambda x: tf.sqrt(x - 1.0) + tf.math.log(x), 0.0) == ["Sqrt", "Log"]
    assert origins(lambda x: tf.math.log(x) + tf.sqrt(x - 1.0), 0.0) == ["Log", "Sqrt"]


def test_the_nearest_origin_comes_first():
    assert origins(lambda x: tf.exp(tf.math.log(x)) * tf.math.log(x) + tf.sqrt(x - 1.0), 0.0)[0] == "Sqrt"


def test_an_origin_that_two_ways_lead_to_is_found_once():
    def step(x):
        log = tf.math.log(x)
        return log * 2.0 - tf.square(log)

    assert origins(step, 0.0) == ["Log"]


def test_a_second_walk_returns_only_origins_that_are_new():
    def step(x):
        log = tf.math.log(x)
        return log * 2.0, log + tf.sqrt(x - 1.0)

    program = probed(step, 0.0)
    walk = program.walk()
    assert kinds(walk.back_from(program.results[0])) == ["Log"]
    assert kinds(walk.back_from(program.results[1])) == ["Sqrt"]
    assert kinds(walk.origins) == ["Log", "Sqrt"]


def test_the_way_leads_from_the_origin_to_what_went_bad():
    program = probed(lambda x: tf.square(tf.exp(-tf.math.log(x))), 0.0)
    (origin,) = program.walk().back_from(program.results[0])
    assert kinds(list(origin.path())) == ["Log", "Neg", "Exp", "Square"]


def test_the_walk_enters_the_branch_that_ran():
    def step(x):
        return 2.0 * tf.cond(x < 1.0, lambda: tf.math.log(x), lambda: tf.sqrt(x - 1.0))

    assert origins(step, 0.0) == ["Log"]


def test_the_walk_leaves_a_branch_by_what_was_handed_in():
    def step(x):
        log = tf.math.log(x)
        return tf.cond(x < 1.0, lambda: 2.0 * log, lambda: x)

    assert origins(step, 0.0) == ["Log"]


def test_the_first_bad_round_of_a_loop_is_the_origin():
    def step(x):
        return tf.while_loop(lambda at, _: at < 4, lambda at, x: (at + 1, tf.math.log(x)), (0, x))[1]

    # The logarithms are 0.69, -0.37, NaN, NaN.
    program = probed(step, 2.0)
    (origin,) = program.walk().back_from(program.results[0])
    assert origin.node.op.type == "Log"
    assert [bool(execution.inputs) for execution in origin.node.executions] == [False, True]
    assert origin.execution is origin.node.executions[0]


def test_the_last_round_is_the_origin_of_a_value_that_a_loop_makes_anew():
    def step(x):
        def body(at, x):
            return at + 1, tf.math.log(tf.where(tf.math.is_finite(x), x, 0.0))

        return tf.while_loop(lambda at, _: at < 3, body, (0, x))[1]

    program = probed(step, 0.0)
    (origin,) = program.walk().back_from(program.results[0])
    assert len(origin.node.executions) == 3
    assert origin.execution is origin.node.executions[-1]


def test_a_tensor_list_leads_to_the_element_that_was_bad_first():
    def step(x):
        log = tf.math.log(x)
        with tf.control_dependencies([log]):
            root = tf.sqrt(x - 1.0)
        stack = tf.TensorArray(tf.float32, 2, element_shape=[]).write(0, root).write(1, log)
        return tf.reduce_sum(stack.stack())

    assert origins(step, 0.0) == ["Log"]


def test_a_variable_that_the_step_made_bad_leads_to_what_was_written():
    weight = tf.Variable(1.0)

    def step(x):
        weight.assign(tf.math.log(x))
        return 2.0 * weight

    program = probed(step, 0.0)
    (origin,) = program.walk().back_from(program.results[0])
    assert origin.node.op.type == "Log"
    assert "AssignVariableOp" in kinds(list(origin.path()))
    assert weight.numpy() == 1.0


def test_a_write_after_the_read_is_no_origin_even_if_it_reports_first():
    weight = tf.Variable(1.0)

    def slowly(value):
        time.sleep(0.2)
        return value

    def step(x):
        late = tf.numpy_function(slowly, [x], tf.float32)
        weight.assign(tf.sqrt(late - 1.0))
        read = 2.0 * weight
        weight.assign(tf.math.log(x))
        return read, 2.0 * weight

    assert origins(step, 0.0) == ["Sqrt"]


def test_a_nan_that_max_pooling_swallowed_leads_back_from_what_it_made_wrong():
    def step(x):
        pooled = tf.nn.max_pool2d(tf.sqrt(x), 2, 1, "VALID")
        return tf.math.log(pooled - 2.0)

    program = probed(step, np.reshape([4.0, -1.0, 1.0, 0.0], [1, 2, 2, 1]))
    (origin,) = program.walk().back_from(program.results[0])
    assert kinds(list(origin.path())) == ["Sqrt", "MaxPool", "Log"]
    assert [visit.swallowed for visit in origin.path()] == [False, True, False]


def test_a_comparison_with_nan_leads_to_what_was_compared():
    def step(x):
        is_large = tf.cast(tf.sqrt(x - 1.0) > 0.0, tf.float32)
        return tf.math.log(is_large)

    assert origins(step, 0.0) == ["Sqrt"]


def test_a_test_for_nan_does_not_lead_to_what_was_tested():
    def step(x):
        is_right = tf.math.is_nan(tf.sqrt(x - 1.0))
        return tf.math.log(x + 0.0 * tf.cast(is_right, tf.float32))

    assert origins(step, 0.0) == ["Log"]


def test_the_first_nan_is_where_an_infinity_became_one():
    def step(x):
        log = 2.0 * tf.math.log(x)
        return tf.exp(log - tf.identity(log))

    program = probed(step, 0.0)
    walk = program.walk()
    (origin,) = walk.back_from(program.results[0])
    assert origin.node.op.type == "Log"
    assert not origin.has_nan
    assert walk.first_nan(origin).node.op.type == "Sub"


def test_there_is_no_first_nan_where_an_infinity_stays_one():
    program = probed(lambda x: -2.0 * tf.math.log(x), 0.0)
    walk = program.walk()
    (origin,) = walk.back_from(program.results[0])
    assert walk.first_nan(origin) is None


def test_an_infinity_that_meets_a_nan_did_not_become_one():
    program = probed(lambda x: tf.math.log(x) + tf.sqrt(x - 1.0), 0.0)
    walk = program.walk()
    log, _ = walk.back_from(program.results[0])
    assert log.node.op.type == "Log"
    assert walk.first_nan(log) is None


def test_samples_that_a_mask_removed_do_not_reach_the_loss():
    def step(x, mask):
        log = tf.math.log(x)
        return tf.reduce_sum(tf.where(mask, log, tf.zeros_like(log)))

    program = probed(step, [0.0, 1.0, 0.0], [True, True, False])
    walk = program.walk()
    (origin,) = walk.back_from(program.results[0])
    assert origin.execution.samples == (0, 2)
    assert walk.samples_reaching(origin, origin.execution.samples, 3) == (0,)


def test_all_bad_samples_reach_an_operation_that_mixes_them():
    program = probed(lambda x: tf.reduce_sum(tf.math.log(x)), [0.0, 1.0, 0.0])
    walk = program.walk()
    (origin,) = walk.back_from(program.results[0])
    assert walk.samples_reaching(origin, origin.execution.samples, 3) == (0, 2)


def test_an_origin_works_by_samples_where_its_users_have_the_same_bad_ones():
    program = probed(lambda x: (tf.square(tf.math.log(x)), x), [0.0, 1.0, 0.0])
    walk = program.walk()
    (origin,) = walk.back_from(program.results[0])
    assert walk.works_by_samples(origin, (0, 2), 3)
    assert not walk.works_by_samples(origin, (0,), 3)
    assert not walk.works_by_samples(origin, (0, 2), 4)


def test_the_walk_knows_which_tensors_are_bad_and_which_hold_nan():
    program = probed(lambda x: (tf.math.log(x), tf.sqrt(x - 1.0), x), 0.0)
    walk = program.walk()
    infinite, nan, finite = program.results
    assert [walk.is_reached(tensor) for tensor in (infinite, nan, finite)] == [True, True, False]
    assert [walk.has_nan(tensor) for tensor in (infinite, nan, finite)] == [False, True, False]
