"""An index out of its range, which XLA lets pass and a replay outside of XLA meets as an error."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, Watch

CLASSES = 3
SPARSE = "SparseSoftmaxCrossEntropyWithLogits"


def line_of(marker):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(at for at, text in enumerate(lines, 1) if text.endswith(f"# {marker}"))


def assert_label_is_named(verdict):
    first, (cause,) = verdict.first, verdict.causes
    assert (first.step, first.op.type, first.kind, first.samples, first.counts.nan) == (1, SPARSE, "nan", (1,), 1)
    assert cause.id == "label-range"
    assert cause.text == "Labels reach from 0 to 3, and there are 3 classes: from 0 to 2."
    assert verdict.notes == ()


def test_a_label_out_of_range_in_a_compiled_step_is_named_with_its_sample(tmp_path):
    layer, optimizer = keras.layers.Dense(CLASSES, name="logits"), keras.optimizers.SGD(0.1)
    layer.build([None, 2])
    optimizer.build(layer.trainable_variables)
    watch = Watch(tmp_path, layer.trainable_variables)

    @watch.step(jit_compile=True)
    def train_step(x, y):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=layer(x))  # the labels
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, layer.trainable_variables)
        watch.apply_gradients(optimizer, zip(gradients, layer.trainable_variables, strict=True), loss=loss)

    train_step(tf.ones([4, 2]), tf.constant([0, 1, 2, 1]))
    with pytest.raises(NonFiniteError) as caught:
        train_step(tf.ones([4, 2]), tf.constant([0, 3, 2, 1]))
    assert_label_is_named(caught.value.verdict)
    assert caught.value.verdict.first.source.line == line_of("the labels")


def test_a_label_out_of_range_in_a_compiled_fit_is_named_with_its_sample(tmp_path):
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(CLASSES, name="logits")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=True)
    x, y = np.ones([8, 2], "float32"), np.array([0, 1, 2, 1, 0, 3, 2, 1])
    with pytest.raises(NonFiniteError) as caught:
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[NanWatchCallback(tmp_path)])
    assert_label_is_named(caught.value.verdict)


LOOKUPS = {
    "GatherV2": lambda table, indices: tf.gather(tf.abs(table), indices),
    "ResourceGather": lambda table, indices: 1.0 * tf.nn.embedding_lookup(table, indices),
}


@pytest.mark.parametrize("op", LOOKUPS)
def test_an_index_out_of_range_that_ends_the_replay_is_named_with_its_place(tmp_path, op):
    table, optimizer = tf.Variable(tf.ones([10, 2]), name="table"), keras.optimizers.SGD(0.1)
    optimizer.build([table])
    watch = Watch(tmp_path, [table])

    @watch.step(jit_compile=True)
    def train_step(indices, x):
        with tf.GradientTape() as tape:
            # Without a gradient of its own, which would refuse the index as well.
            rows = tf.stop_gradient(LOOKUPS[op](table, indices))
            loss = tf.reduce_sum(rows) * tf.math.log(x) + tf.reduce_sum(table)
        watch.apply_gradients(optimizer, [(tape.gradient(loss, table), table)], loss=loss)

    train_step(tf.constant([1, 2, 3]), tf.constant(1.0))
    with pytest.raises(NonFiniteError) as caught:
        train_step(tf.constant([1, 2, 12]), tf.constant(0.0))
    verdict = caught.value.verdict
    assert verdict.first.op is None
    source = f"{Path(__file__).relative_to(Path.cwd())}:{line_of_lookup(op)}"
    refused = f"{op} ({source}) ended the replay with an error: indices[2] = 12 is not in [0, 10)"
    assert verdict.notes == (f"The step could not be run again: {refused} (XLA and GPUs do not check this).",)


def line_of_lookup(op):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(at for at, text in enumerate(lines, 1) if text.startswith(f'    "{op}": lambda'))
