"""The stash keeps the batch of the first bad step, and copies nothing of a finite step."""

from __future__ import annotations

import tensorflow as tf

from tb_nanwatch.watch.record.draws import Draws
from tb_nanwatch.watch.record.stash import Stash


def step_with(stash, *, draws=False):
    """Return a step that keeps its batch and what it drew if the given number is negative."""

    @tf.function
    def step(batch, number, is_quiet):
        graph = tf.compat.v1.get_default_graph()
        stash.offer(graph, batch)
        noise = tf.random.normal([2]) if draws else tf.zeros([2])
        drawn = Draws.in_graph(graph) if draws else None
        tf.cond(number < 0, lambda: stash.keep(graph, is_quiet, drawn), lambda: tf.constant(False))
        stash.forget_offer()
        return noise

    return lambda batch, number, is_quiet=True: step(batch, tf.constant(number), tf.constant(is_quiet))


def test_the_batch_of_a_bad_step_is_given_once():
    stash = Stash()
    step = step_with(stash)
    step({"x": tf.constant([1.0, 2.0]), "rate": 3}, -1)
    ([batch], drawn) = stash.take()
    assert (batch["x"].numpy().tolist(), batch["rate"], drawn) == ([1.0, 2.0], 3, None)
    assert stash.take() == (None, None)


def test_a_finite_step_and_a_step_after_an_incident_leave_the_stash_as_it_is():
    stash = Stash()
    step = step_with(stash)
    assert stash.take() == (None, None)
    step(tf.constant([1.0]), 1)
    assert stash.take() == (None, None)
    step(tf.constant([2.0]), -1)
    step(tf.constant([3.0]), -1, is_quiet=False)
    assert stash.take()[0][0].numpy().tolist() == [2.0]


def test_the_batch_may_have_another_shape_in_each_step():
    stash = Stash()

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None])])
    def step(words):
        graph = tf.compat.v1.get_default_graph()
        stash.offer(graph, words)
        tf.cond(tf.constant(True), lambda: stash.keep(graph, tf.constant(True), None), lambda: tf.constant(False))

    for rows in ([[1.0], [2.0, 3.0]], [[4.0, 5.0, 6.0]]):
        step(tf.ragged.constant(rows))
        assert stash.take()[0][0].to_list() == rows


def test_random_numbers_are_those_that_the_step_drew():
    stash = Stash()
    noise = step_with(stash, draws=True)(tf.constant([1.0]), -1)
    (_, drawn) = stash.take()
    assert drawn.kinds == ["RandomStandardNormal"]
    assert drawn.tensors[0].numpy().tolist() == noise.numpy().tolist()


def test_the_batch_of_a_step_that_xla_compiles_is_kept_by_its_caller():
    stash = Stash()

    @tf.function
    def call(batch, incident):
        stash.keep_after(batch, incident)

    call(tf.constant([1.0]), tf.constant(-1, tf.int64))
    assert stash.take() == (None, None)
    call(tf.constant([2.0]), tf.constant(0, tf.int64))
    call(tf.constant([3.0]), tf.constant(0, tf.int64))
    assert stash.take()[0][0].numpy().tolist() == [2.0]
