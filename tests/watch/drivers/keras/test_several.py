"""A ``train_step`` with several updates: the batch, operation and line of a bad one are known."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, load_batch
from tests.watch.drivers.keras.models import BAD_ROW, BATCHES, POISONED, SIZE

UPDATES = ("first", "second", "third")


class Thrice(keras.Model):
    """Updates three layers in one step, each by a loss whose gradient is infinite where a sample is 0."""

    def __init__(self, bad: str, *, has_one_optimizer: bool) -> None:
        super().__init__()
        self.bad = bad
        self.parts = [keras.layers.Dense(1, name=name) for name in UPDATES]
        for layer in self.parts:
            layer.build([None, 3])
        shared = keras.optimizers.SGD(0.1)
        self.optimizers = [shared if has_one_optimizer else keras.optimizers.SGD(0.1) for _ in UPDATES]
        if has_one_optimizer:
            shared.build(self.trainable_variables)

    def train_step(self, data):
        (x,) = data
        for name, layer, optimizer in zip(UPDATES, self.parts, self.optimizers, strict=True):
            with tf.GradientTape() as tape:
                distance = x[:, 0] if name == self.bad else 1.0
                loss = tf.reduce_mean(tf.sqrt(tf.square(layer(x)[:, 0]) * 0.0 + distance))  # origin: slope
            gradients = tape.gradient(loss, layer.trainable_variables)
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
        return {"loss": loss}


def fit(model, callback):
    x = np.ones([BATCHES * SIZE, 3], "float32")
    x[BAD_ROW] = 0.0
    model.fit(tf.data.Dataset.from_tensor_slices((x,)).batch(SIZE), shuffle=False, verbose=0, callbacks=[callback])


def line_of(marker):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(at for at, text in enumerate(lines, 1) if text.endswith(f"# origin: {marker}"))


WAYS = [
    ("second", False, {}),
    ("second", True, {}),
    ("third", False, {}),
    ("third", True, {"run_eagerly": True}),
    ("third", False, {"jit_compile": True}),
    ("third", True, {"steps_per_execution": 2}),
]


@pytest.mark.parametrize(("bad", "has_one_optimizer", "compiled"), WAYS)
def test_the_batch_and_the_operation_of_a_bad_later_update_are_known(tmp_path, bad, has_one_optimizer, compiled):
    model = Thrice(bad, has_one_optimizer=has_one_optimizer)
    model.compile(**compiled)
    with pytest.raises(NonFiniteError) as caught:
        fit(model, NanWatchCallback(tmp_path))
    first = caught.value.verdict.first
    assert (first.step, first.op.type, first.source.line) == (POISONED, "SqrtGrad", line_of("slope"))
    (saved,) = load_batch(tmp_path.parent / first.batch).args
    assert np.flatnonzero(saved[:, 0] == 0.0).tolist() == [BAD_ROW % SIZE]


def test_a_skipped_later_update_saves_its_batch_too(tmp_path, read):
    model = Thrice("third", has_one_optimizer=False)
    model.compile()
    fit(model, NanWatchCallback(tmp_path, policy="skip"))
    verdict = read(tmp_path).verdict
    assert (verdict.first.step, verdict.skipped_steps) == (POISONED, 1)
    assert verdict.first.batch is not None
