"""What one run of one operation leaves: nothing if it was finite, or else counts, samples and ranges."""

from __future__ import annotations

import numpy as np
import pytest

from tb_nanwatch.watch.replay.creation import Creation
from tb_nanwatch.watch.replay.execution import execution_of, execution_of_write, lost_samples, range_of
from tb_nanwatch.watch.replay.probe import Node

NAN, INF = float("nan"), float("inf")


def array(*values):
    return np.array(values, "float32")


def test_a_finite_run_leaves_nothing():
    assert execution_of("Log", {0: array(1.0)}, {0: array(0.0)}, moment=3) is None


def test_a_non_finite_output_is_counted_with_its_samples():
    found = execution_of("Log", {0: array(0.0, 1.0, -1.0)}, {0: array(-INF, 0.0, NAN)}, moment=3)
    assert (found.moment, found.inputs, found.samples, found.leading) == (3, frozenset(), (0, 2), 3)
    assert (found.outputs[0].nan, found.outputs[0].neg_inf, found.outputs[0].size) == (1, 1, 3)
    assert found.has_nan
    assert found.ranges[0].min == -1.0


def test_the_places_of_non_finite_inputs_are_kept():
    found = execution_of("Add", {0: array(1.0), 1: array(NAN)}, {0: array(NAN)}, moment=0)
    assert found.inputs == frozenset({1})


def test_a_large_input_has_a_range_only_if_all_inputs_were_finite():
    large, bad = np.ones(1 << 17, "float32"), array(NAN)
    first = execution_of("AddV2", {0: large, 1: array(1.0)}, {0: bad}, moment=0)
    later = execution_of("AddV2", {0: large, 1: bad}, {0: bad}, moment=0)
    assert (set(first.ranges), set(later.ranges)) == ({0, 1}, {1})


def test_a_maximum_that_returns_a_number_for_nan_swallowed_it():
    found = execution_of("Maximum", {0: array(NAN), 1: array(0.0)}, {0: array(0.0)}, moment=0)
    assert (found.swallowed, found.outputs) == (True, {})
    assert execution_of("Maximum", {0: array(INF), 1: array(0.0)}, {0: array(0.0)}, moment=0) is None
    assert execution_of("SelectV2", {0: array(NAN), 1: array(0.0)}, {0: array(0.0)}, moment=0) is None
    assert not execution_of("Maximum", {0: array(NAN), 1: array(0.0)}, {0: array(NAN)}, moment=0).swallowed


def test_an_operation_that_writes_a_variable_always_leaves_its_inputs():
    found = execution_of("AssignVariableOp", {1: array(1.0)}, {}, moment=0)
    assert (found.inputs, found.outputs) == (frozenset(), {})


def test_the_scratch_memory_of_fused_batch_norm_does_not_count():
    outputs = {0: array(1.0), 5: array(NAN)}
    assert execution_of("FusedBatchNormV3", {0: array(1.0)}, outputs, moment=0) is None
    found = execution_of("FusedBatchNormGradV3", {0: array(1.0), 5: array(NAN)}, {0: array(NAN)}, moment=0)
    assert found.inputs == frozenset()


def test_a_write_outside_the_step_is_an_execution_only_with_non_finite_values():
    assert execution_of_write({1: array(1.0)}, is_constant=False) is None
    assert execution_of_write({1: array(NAN)}, is_constant=False).inputs == frozenset({1})
    assert execution_of_write({1: array(NAN)}, is_constant=True).inputs == frozenset()


def test_a_sample_is_lost_if_all_of_it_is_nan():
    assert lost_samples(np.array([[NAN, NAN], [NAN, 1.0], [1.0, 1.0]])) == (0,)
    assert lost_samples(np.array(NAN)) == ()


@pytest.mark.parametrize(
    ("values", "least", "greatest", "zeros"),
    [(array(0.0, 2.0, NAN, -INF), 0.0, 2.0, 1), (array(NAN), None, None, 0), (np.array([1j]), None, None, 0)],
)
def test_a_range_is_that_of_the_finite_elements(values, least, greatest, zeros):
    found = range_of(values)
    assert (found.min, found.max, found.zeros, found.shape) == (least, greatest, zeros, values.shape)


def test_a_node_finds_its_executions_before_a_moment():
    node = Node(None, 0, Creation())
    node.executions += [execution_of("Log", {0: array(0.0)}, {0: array(-INF)}, moment=moment) for moment in (2, 4, 6)]
    assert [found.moment for found in (node.first_bad_before(5, 0), node.last_bad_before(5, 0))] == [2, 4]
    assert node.last_bad_before(2, 0) is None
    assert node.last_bad_before(9, 1) is None
