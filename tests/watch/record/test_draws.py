"""What a step draws by itself is handed out where it is bad, and the replay is given the same.

Each draw is bad in one step of fifty or less, so that a replay that drew anew would hardly ever see it.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, Watch

MANY = 4000
SIZE = 4


def line_of(marker):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(at for at, text in enumerate(lines, 1) if text.endswith(f"# {marker}"))


def verdict_of(logdir, draw, **options):
    """Train on the logarithm of the drawn values until the loss is bad."""
    weight, optimizer = tf.Variable(1.0, name="weight"), keras.optimizers.SGD(0.0)
    optimizer.build([weight])
    watch = Watch(logdir, [weight], **options)

    @watch.step
    def train_step(x):
        drawn = draw(x)
        with tf.GradientTape() as tape:
            loss = weight * tf.reduce_sum(tf.math.log(drawn))  # the log
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    def train():
        for _ in range(MANY):
            train_step(tf.ones([SIZE, 2]))

    with pytest.raises(NonFiniteError) as caught:
        train()
    return caught.value.verdict


def assert_log_is_named(verdict):
    assert (verdict.first.op.type, verdict.first.source.line) == ("Log", line_of("the log"))
    assert verdict.notes == ()


def action(_):
    return 1.0 - tf.cast(tf.random.categorical([[0.0, -5.0]], 1), tf.float32)


DRAWS = {
    "as many as the program says": lambda _: 2.5 + tf.random.normal([SIZE]),
    "as many as the batch has": lambda x: 2.5 + tf.random.normal(tf.shape(x)[:1]),
    "a generator of whole numbers": lambda _: tf.cast(tf.random.uniform([], maxval=100, dtype=tf.int32), tf.float32),
    "dropout": lambda x: tf.reduce_sum(tf.nn.dropout(x[0], 0.1)),
    "an image": lambda x: tf.image.random_brightness(0.98 * x[:1, :1, None], 1.0),
    "an order": lambda _: tf.random.shuffle(tf.range(60.0))[0],
    "an action": action,
}


@pytest.mark.parametrize("draw", DRAWS)
def test_random_numbers_are_those_of_the_bad_step(tmp_path, draw):
    assert_log_is_named(verdict_of(tmp_path, DRAWS[draw]))


def test_each_of_several_operations_gets_its_own_numbers(tmp_path):
    inner = tf.function(lambda: tf.random.uniform([]))

    def draw(_):
        # What a function of the step draws cannot be handed out, and must not take what another operation drew.
        return tf.random.uniform([]) * 0.0 + 0.0 * inner() + tf.random.uniform([]) - 0.01

    verdict = verdict_of(tmp_path, draw)
    assert (verdict.first.op.type, verdict.first.counts.nan) == ("Log", 1)


def test_an_element_of_an_iterator_is_that_of_the_bad_step(tmp_path):
    batches = iter(tf.data.Dataset.from_tensor_slices([[1.0, 2.0], [3.0, 0.0], [4.0, 5.0]]))
    verdict = verdict_of(tmp_path, lambda _: next(batches))
    assert_log_is_named(verdict)
    assert (verdict.first.step, verdict.first.kind) == (1, "neg_inf")


def test_an_element_of_a_queue_is_that_of_the_bad_step_and_the_replay_takes_no_other(tmp_path):
    queue = tf.queue.FIFOQueue(8, [tf.float32], [[2]])
    queue.enqueue_many([[[1.0, 2.0], [3.0, 0.0], [4.0, 5.0]]])
    verdict = verdict_of(tmp_path, lambda _: queue.dequeue())
    assert_log_is_named(verdict)
    assert verdict.first.step == 1
    assert queue.dequeue().numpy().tolist() == [4.0, 5.0]


def test_nan_in_an_element_is_nan_in_the_batch(tmp_path):
    batches = iter(tf.data.Dataset.from_tensor_slices([[1.0, 2.0], [3.0, np.nan], [4.0, 5.0]]))
    first = verdict_of(tmp_path, lambda _: next(batches)).first
    assert (first.step, first.phase, first.op, first.counts.nan) == (1, "input", None, 1)


def test_a_note_says_that_numbers_drawn_in_a_branch_differ(tmp_path):
    def draw(x):
        return tf.cond(x[0, 0] > 0.0, lambda: tf.random.uniform([]) - 0.01, lambda: 1.0)

    verdict = verdict_of(tmp_path, draw)
    assert verdict.first.op is None
    assert verdict.notes[1] == (
        "The step draws random numbers by RandomUniform, which draws others when it is run again."
    )


class Noisy(keras.Model):
    """Two updates, each by noise of its own; a draw of the second is bad in one step of a hundred."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.layers.Dense(1, name=name) for name in ("critic", "generator")]
        for layer in self.parts:
            layer.build([None, 3])
        self.optimizers = [keras.optimizers.SGD(0.0) for _ in self.parts]

    def train_step(self, data):
        (x,) = data
        for layer, optimizer, lowest in zip(self.parts, self.optimizers, (1.0, -0.01), strict=True):
            noise = tf.random.uniform([]) + lowest
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(layer(x)) * tf.math.log(noise)  # log of noise
            gradients = tape.gradient(loss, layer.trainable_variables)
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
        return {"loss": loss}


def test_noise_of_a_later_update_of_fit_is_that_of_the_bad_step(tmp_path):
    model = Noisy()
    model.compile()
    with pytest.raises(NonFiniteError) as caught:
        model.fit(
            tf.data.Dataset.from_tensors((np.ones([2, 3]),)).repeat(MANY),
            shuffle=False,
            verbose=0,
            callbacks=[NanWatchCallback(tmp_path)],
        )
    first = caught.value.verdict.first
    assert (first.op.type, first.source.line) == ("Log", line_of("log of noise"))
    assert first.batch is not None
