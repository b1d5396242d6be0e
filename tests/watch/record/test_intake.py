"""A session's call holds the values that entered its run, and an intake brings them to the host."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.watch.record.intake import FedCall, Intake

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


class TestFedCall:
    def test_the_feed_is_named_by_its_placeholders(self, graph):
        x = v1.placeholder(tf.float32, [None], name="inputs/x")
        sparse = v1.sparse_placeholder(tf.float32, [5, 2], name="s")
        call = FedCall.of(graph, {x: [1.0, 2.0], "inputs/x:0": [3.0], sparse: ([[0, 0]], [4.0], [5, 2])})
        leaves = {name: np.asarray(value).tolist() for name, value in call.leaves()}
        assert (leaves["inputs/x"], leaves["s/values"], leaves["s/indices"]) == ([3.0], [4.0], [[0, 0]])
        assert (call.args, call.kwargs, call.notes) == ((call.fed,), {}, ())

    def test_bad_values_are_found_by_sample(self):
        nan = float("nan")
        call = FedCall({"x:0": np.array([1.0, nan]), "s/indices:0": [[0, 0], [3, 1]], "s/values:0": [1.0, nan]})
        assert [(found.name, found.samples) for found in call.findings()] == [("x", (1,)), ("s/values", (3,))]

    def test_an_element_joins_the_feed_and_is_no_finding(self, graph):
        element = tf.constant([0.0], name="next")
        intake = Intake(elements=[element])
        values = {"next:0": np.array([np.nan]), "noise:0": np.array([2.0])}
        call = FedCall.of(graph, {}).with_entered(values, intake)
        assert (list(call.fed), list(call.entered), call.findings()) == (["next:0"], ["noise:0"], ())

    def test_its_own_arrays_outlast_the_users(self):
        mine = np.array([1.0])
        call = FedCall({"x:0": mine}).with_own_arrays()
        mine[0] = np.nan
        assert call.fed["x:0"].tolist() == [1.0]


def test_values_of_any_size_are_fetched_in_one_vector(graph):
    texts, numbers = tf.constant([b"a", b"longer than a word"]), tf.constant([[1, 2, 3]], tf.int8)
    intake = Intake(elements=[texts], results=[numbers])
    with v1.Session() as session:
        values = intake.unpacked(session.run(intake.packed()))
    assert {name: value.tolist() for name, value in values.items()} == {
        texts.name: [b"a", b"longer than a word"],
        numbers.name: [[1, 2, 3]],
    }
    assert (Intake().unpacked(np.zeros(0)), list(intake.batch(values))) == ({}, [texts.name])
