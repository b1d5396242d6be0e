"""A step of a session that an operation's error ends: the user gets the error, and the log records it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchHook, Watch
from tests.watch.drivers.session_v1.graphs import line_of, v1, watched_step

LABELS = "Received a label value of 3 which is outside the valid range of [0, 3)."


class Classifier:
    """Logits of three classes from a weight and a feed."""

    def __init__(self, tmp_path):
        self.x, self.labels = v1.placeholder(tf.float32, [3], name="x"), v1.placeholder(tf.int32, [2], name="labels")
        with v1.variable_scope("layer"):
            self.weight = v1.get_variable("w", [3], initializer=v1.ones_initializer())
        self.watch = Watch(tmp_path)

    def step(self, loss):
        return watched_step(self.watch, loss)

    def losses(self):
        logits = tf.stack([self.weight * self.x, self.weight])
        return tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=self.labels)  # origin: labels

    def feed(self, *, x=(1, 2, 3), labels=(0, 1)):
        return {self.x: x, self.labels: labels}


@pytest.fixture
def classifier(tmp_path):
    return Classifier(tmp_path)


def note_of(error):
    if sys.version_info < (3, 11):
        pytest.skip("errors have no notes")
    (note,) = error.__notes__
    return note


@pytest.mark.parametrize("way", ["session_run", "hook"])
@pytest.mark.filterwarnings("ignore:tb_nanwatch. Step 1 did not end")
def test_a_label_out_of_its_range_is_reported_with_its_operation(way, classifier, tmp_path, read):
    train = classifier.step(tf.reduce_sum(classifier.losses()))
    hooks = [NanWatchHook(classifier.watch)] if way == "hook" else []
    with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
        run = session.run if hooks else lambda *given: classifier.watch.session_run(session, *given)
        run(train, classifier.feed())
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"outside the valid range") as caught:
            run(train, classifier.feed(labels=[0, 3]))
    classifier.watch.close()
    assert LABELS in str(caught.value)
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("warning", 1)
    place = f"tests/watch/drivers/session_v1/test_unfinished.py:{line_of('labels', __file__)}"
    where = f"The error came from SparseSoftmaxCrossEntropyWithLogits ({place})"
    for text in (verdict.text + " ".join(verdict.notes), note_of(caught.value)):
        assert "Step 1 did not end" in text
        assert LABELS in text
        assert where in text


@pytest.mark.filterwarnings("ignore:tb_nanwatch. Step 1")
def test_a_nan_that_makes_an_index_is_the_origin_of_the_error(classifier, tmp_path, read):
    logits = classifier.weight * tf.math.log(classifier.x)  # origin: log
    index = tf.cast(tf.where(tf.math.is_nan(logits), [7, 7, 7], [0, 1, 2]), tf.int32)
    picked = tf.gather(tf.stop_gradient(classifier.weight), index)
    train = classifier.step(tf.reduce_sum(picked) + tf.reduce_sum(logits))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        classifier.watch.session_run(session, train, classifier.feed())
        before = session.run(classifier.weight)
        with pytest.raises(tf.errors.InvalidArgumentError, match="is not in") as caught:
            classifier.watch.session_run(session, train, classifier.feed(x=[1, -1, 1]))
        np.testing.assert_array_equal(session.run(classifier.weight), before)
    classifier.watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.phase, first.op.type, first.source.line) == (
        1,
        "forward",
        "Log",
        line_of("log", __file__),
    )
    assert f"test_unfinished.py:{line_of('log', __file__)}" in note_of(caught.value)


def test_the_end_of_a_data_set_is_no_fault(classifier, tmp_path, read):
    element = v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensors(1.0)).get_next()
    train = classifier.step(tf.reduce_sum(classifier.weight) * element)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        classifier.watch.session_run(session, train)
        with pytest.raises(tf.errors.OutOfRangeError) as caught:
            classifier.watch.session_run(session, train)
    classifier.watch.close()
    assert not hasattr(caught.value, "__notes__")
    assert read(tmp_path).verdict.status == "finite"
