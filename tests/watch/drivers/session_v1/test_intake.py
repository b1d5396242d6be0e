"""The values that entered a bad run come to the host, and the replay is fed with them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchHook, NonFiniteError, Watch, load_batch
from tests.watch.drivers.session_v1.graphs import line_of, v1, watched_step

step_of = partial(watched_step, rate=0.0)


@pytest.fixture(autouse=True)
def graph_seed(graph):
    v1.set_random_seed(1)


def verdict_of(watch, train, *, runs=400, before=None):
    """Run a step until it is bad, and return the verdict."""
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        if before is not None:
            session.run(before)
        found = None
        try:
            for _ in range(runs):
                watch.session_run(session, train)
        except NonFiniteError as error:
            found = error.verdict
    watch.close()
    return found


def place(verdict):
    first = verdict.first
    return first.phase, first.op and first.op.type, first.source and first.source.line, first.evidence


def weight(shape=(), use_resource=True):
    with v1.variable_scope("layer", use_resource=use_resource):
        return v1.get_variable("w", shape, initializer=v1.ones_initializer())


def test_an_operation_that_only_some_random_numbers_make_bad_is_named(tmp_path):
    watch, w = Watch(tmp_path), weight([3])
    noise = tf.random.normal([3])
    root = tf.sqrt(noise + 2.5)  # origin: root
    verdict = verdict_of(watch, step_of(watch, tf.reduce_sum(root * w)))
    assert place(verdict) == ("forward", "Sqrt", line_of("root", __file__), "replay")
    assert verdict.notes == ()


@pytest.mark.parametrize("dropout", [tf.nn.dropout, v1.nn.dropout], ids=["v2", "v1"])
def test_an_operation_that_only_some_masks_of_dropout_make_bad_is_named(dropout, tmp_path):
    watch, w = Watch(tmp_path), weight([4])
    kept = dropout(w, rate=0.5)
    ratio = tf.reduce_sum(kept) / tf.reduce_sum(kept)  # origin: ratio
    verdict = verdict_of(watch, step_of(watch, ratio))
    assert place(verdict) == ("loss", "RealDiv", line_of("ratio", __file__), "replay")


def test_later_steps_draw_the_random_numbers_of_a_run_without_a_watch(tmp_path):
    def drawn(watch):
        with tf.Graph().as_default(), v1.Session() as session:
            v1.set_random_seed(3)
            x, w = v1.placeholder(tf.float32, []), weight()
            noise = tf.random.normal([])
            loss = tf.math.log(x) * noise * w
            train = step_of(watch, loss) if watch else v1.train.GradientDescentOptimizer(0.0).minimize(loss)
            session.run(v1.global_variables_initializer())
            run = session.run if watch is None else lambda *given: watch.session_run(session, *given)
            return [run([noise, train], {x: value})[0] for value in (1.0, 0.0, 1.0, 1.0)]

    watch = Watch(tmp_path, policy="skip")
    assert drawn(watch) == drawn(None)
    watch.close()


@pytest.mark.parametrize("make", [v1.data.make_one_shot_iterator, v1.data.make_initializable_iterator])
def test_an_element_of_an_iterator_is_the_batch(make, tmp_path, read):
    rows = np.ones([4, 8, 2], np.float32)
    rows[2, 5, 1] = np.nan
    watch, w = Watch(tmp_path), weight([2])
    iterator = make(tf.data.Dataset.from_tensor_slices((rows, np.arange(4))))
    element, number = iterator.get_next()
    train = step_of(watch, tf.reduce_sum(element * w) + 0 * tf.cast(number, tf.float32))
    before = iterator.initializer if make is v1.data.make_initializable_iterator else None
    verdict = verdict_of(watch, train, before=before)
    assert (verdict.first.step, *place(verdict)) == (2, "input", None, None, "replay")
    assert (verdict.first.tensor, verdict.first.samples) == (element.name.removesuffix(":0"), (5,))
    fed = load_batch(tmp_path / verdict.first.batch.partition("/")[2]).args[0]
    np.testing.assert_array_equal(fed[element.name], rows[2])


def test_a_sparse_element_of_an_iterator_is_the_batch(tmp_path):
    def row(value):
        return tf.SparseTensor([[0, 1]], tf.reshape(value, [1]), [2, 3])

    watch, w = Watch(tmp_path), weight([3, 1])
    data = tf.data.Dataset.from_tensor_slices([1.0, 0.0]).map(row)
    element = v1.data.make_one_shot_iterator(data).get_next()
    product = tf.sparse.sparse_dense_matmul(element, w)
    train = step_of(watch, tf.reduce_sum(tf.math.log(product)[0]))  # origin: sparse
    assert place(verdict_of(watch, train)) == ("loss", "Log", line_of("sparse", __file__), "replay")


def test_an_element_of_a_queue_is_not_taken_twice(tmp_path):
    watch, w = Watch(tmp_path), weight()
    queue = v1.FIFOQueue(4, [tf.float32], [[]])
    element = queue.dequeue()
    train = step_of(watch, tf.math.log(element * w))  # origin: queue
    with v1.Session() as session:
        session.run([v1.global_variables_initializer(), queue.enqueue_many([[1.0, 0.0, 7.0]])])
        watch.session_run(session, train)
        with pytest.raises(NonFiniteError) as caught:
            watch.session_run(session, train)
        assert session.run(element) == 7.0
    assert place(caught.value.verdict) == ("loss", "Log", line_of("queue", __file__), "replay")


def test_python_that_a_step_calls_is_not_called_again(tmp_path):
    watch, w = Watch(tmp_path), weight()
    calls = []

    def given():
        calls.append(1)
        return np.float32(0.0 if len(calls) == 2 else 1.0)

    value = v1.py_func(given, [], tf.float32)
    verdict = verdict_of(watch, step_of(watch, tf.math.log(value * w)))  # origin: python
    assert (len(calls), *place(verdict)) == (2, "loss", "Log", line_of("python", __file__), "replay")


def test_python_that_gives_a_bad_value_is_the_origin(tmp_path):
    watch, w = Watch(tmp_path), weight()
    values = iter([1.0, np.nan, 1.0])
    value = v1.py_func(lambda: np.float32(next(values)), [], tf.float32)  # origin: given
    assert place(verdict_of(watch, step_of(watch, tf.reshape(value, []) * w)))[1:3] == (
        "PyFunc",
        line_of("given", __file__),
    )


def test_a_hook_fetches_them_too(tmp_path):
    watch, w = Watch(tmp_path), weight()
    element = v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices([1.0, 0.0])).get_next()
    train = step_of(watch, tf.math.log(element * w))  # origin: hook
    with v1.train.MonitoredTrainingSession(hooks=[NanWatchHook(watch)]) as session:
        session.run(train)
        with pytest.raises(NonFiniteError) as caught:
            session.run(train)
    assert place(caught.value.verdict) == ("loss", "Log", line_of("hook", __file__), "replay")


def test_by_policy_record_only_the_batch_is_fetched(tmp_path):
    watch, w = Watch(tmp_path, policy="record"), weight()
    element = v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices([1.0, np.nan])).get_next()
    train = step_of(watch, element * w * tf.random.normal([]))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(2):
            watch.session_run(session, train)
    watch.close()
    assert np.isnan(load_batch(tmp_path / "batches" / "step-1.npz").args[0][element.name])
    assert [tensor.op.type for tensor in watch._session_runs.built.intake.tensors] == ["IteratorGetNext"]


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64, tf.int64, tf.string, tf.bool, tf.complex64])
def test_values_of_each_dtype_come_to_the_host_unchanged(dtype, tmp_path):
    values = {tf.string: [b"a", b"a longer text"], tf.bool: [True, False]}.get(dtype, [1, 2])
    watch, w = Watch(tmp_path), weight()
    data = tf.data.Dataset.from_tensors((tf.cast(values, dtype) if dtype != tf.string else tf.constant(values), np.nan))
    element, bad = v1.data.make_one_shot_iterator(data).get_next()
    used = tf.strings.length(element) if dtype == tf.string else tf.cast(element, tf.float32)
    train = step_of(watch, w * bad + 0 * tf.reduce_sum(tf.cast(used, tf.float32)))
    verdict = verdict_of(watch, train)
    assert verdict.first.tensor == bad.name
    kept = load_batch(tmp_path / "batches" / "step-0.npz").args[0][element.name]
    np.testing.assert_array_equal(np.asarray(kept), np.asarray(values, dtype.as_numpy_dtype))
