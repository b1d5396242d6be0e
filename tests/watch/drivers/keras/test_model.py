"""The model is wrapped only while ``fit`` runs."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback
from tb_nanwatch.errors import NonFiniteError, SetupError
from tests.watch.drivers.keras.models import BATCHES, SIZE, Way, arrays, network
from tests.watch.networks import same

OURS = {"train_step", "make_train_function", "_autoconvert_optionals", "apply", "scale_loss", "_clip_gradients", "call"}


def leftovers(model):
    held = [model, model.optimizer, *model.layers]
    return [name for one in held for name in vars(one) if name in OURS]


class Breaks(keras.callbacks.Callback):
    """Ends ``fit`` from where no step runs."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise RuntimeError("broken")


class Interrupted(keras.Sequential):
    """Its training step is interrupted from the keyboard."""

    is_interrupted = False

    def train_step(self, data):
        if self.is_interrupted:
            raise KeyboardInterrupt
        return super().train_step(data)


def test_nothing_is_left_on_the_model_after_fit(tmp_path):
    way = Way(network(), *arrays())
    way.train()
    trained_before = way.model.train_function
    way.train(NanWatchCallback(tmp_path, activations_every=2))
    assert leftovers(way.model) == []
    assert way.model.train_function is trained_before


def test_an_interrupted_fit_leaves_the_model_unwrapped_and_writes_its_steps(tmp_path, read):
    way = Way(network(Interrupted, run_eagerly=True), *arrays())
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: setattr(way.model, "is_interrupted", batch == 3)
    )
    with pytest.raises(KeyboardInterrupt):
        way.train(NanWatchCallback(tmp_path), stop)
    assert leftovers(way.model) == []
    assert read(tmp_path).verdict.steps_seen == 3


def of_unknown_length(x, y):
    """Return batches of unknown number, as from a generator or after a filter."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8).filter(lambda *_: True)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}])
def test_every_epoch_is_watched_of_data_of_unknown_length(tmp_path, read, how):
    model = keras.Sequential([keras.layers.Input([2]), keras.layers.Dense(1)])
    model.compile("sgd", "mse", **how)
    x = np.ones([24, 2], "float32")
    model.fit(
        of_unknown_length(x, x[:, :1]), epochs=3, shuffle=False, verbose=0, callbacks=[NanWatchCallback(tmp_path)]
    )
    assert read(tmp_path).verdict.steps_seen == 9


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_bad_batch_in_a_later_epoch_of_unknown_length_is_found(tmp_path):
    model = keras.Sequential([keras.layers.Input([2]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    rows = iter(np.where(np.arange(96)[:, None] == 41, np.nan, np.ones([96, 2], "float32")))

    def epoch():
        yield from ((row, row[:1]) for _, row in zip(range(24), rows, strict=False))

    specs = (tf.TensorSpec([2], tf.float32), tf.TensorSpec([1], tf.float32))
    batches = tf.data.Dataset.from_generator(epoch, output_signature=specs).batch(8)
    with pytest.raises(NonFiniteError) as caught:
        model.fit(batches, epochs=3, shuffle=False, verbose=0, callbacks=[NanWatchCallback(tmp_path)])
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.tensor, first.samples) == (5, "input", "x", (1,))


def test_a_fit_that_another_callback_ended_does_not_disturb_the_next(tmp_path, read):
    watched, bare = Way(network(), *arrays()), Way(network(), *arrays())
    for way, callbacks in ((watched, [NanWatchCallback(tmp_path)]), (bare, [])):
        with pytest.raises(RuntimeError, match="broken"):
            way.train(*callbacks, Breaks())
    assert same(watched.train(), bare.train())
    assert leftovers(watched.model) == []
    callback = NanWatchCallback(tmp_path / "next")
    assert same(watched.train(callback), bare.train())
    assert read(tmp_path / "next").verdict.steps_seen == BATCHES


def test_a_batch_trained_after_fit_failed_is_not_watched(tmp_path):
    way = Way(network(), *arrays())
    with pytest.raises(RuntimeError, match="broken"):
        way.train(NanWatchCallback(tmp_path), Breaks())
    loss, _ = way.model.train_on_batch(way.x[:SIZE], way.y[:SIZE] * np.inf)
    assert not np.isfinite(loss)
    assert leftovers(way.model) == []


def test_a_batch_that_a_callback_trains_in_between_is_watched_too(tmp_path, read):
    way = Way(network(), *arrays())
    between = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: way.model.train_on_batch(way.x[:SIZE], way.y[:SIZE])
    )
    way.train(NanWatchCallback(tmp_path), between, epochs=2)
    assert read(tmp_path).verdict.steps_seen == 2 * (BATCHES + 1)


def test_a_train_step_of_the_instance_is_restored(tmp_path, read):
    way = Way(network(), *arrays())
    own = way.model.train_step
    way.model.train_step = own
    way.train(NanWatchCallback(tmp_path))
    assert vars(way.model)["train_step"] is own
    assert read(tmp_path).verdict.steps_seen == BATCHES


def test_two_watches_at_once_are_refused(tmp_path):
    way = Way(network(), *arrays())
    with pytest.raises(SetupError, match="one NanWatchCallback at a time; fit was given two"):
        way.train(NanWatchCallback(tmp_path / "a"), NanWatchCallback(tmp_path / "b"))


class OfNobody:
    """An optimizer of no library."""

    def apply_gradients(self, pairs):
        for gradient, variable in pairs:
            variable.assign_sub(0.01 * gradient)


class Foreign(keras.Sequential):
    """Trains with an optimizer of no library, which is an attribute of the model or is not."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_weights)
        getattr(self, "own", OfNobody()).apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("holds", [True, False])
def test_an_optimizer_that_cannot_be_watched_is_named_once_and_trains_on(tmp_path, holds, run_eagerly):
    def way():
        model = network(Foreign, metrics=None, run_eagerly=run_eagerly)
        if holds:
            model.own = OfNobody()
        return Way(model, *arrays())

    callback = NanWatchCallback(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = way().train(callback)
    warned = [str(warning.message) for warning in caught if "tb_nanwatch" in str(warning.message)]
    assert len(warned) == 1
    assert ("OfNobody, which is no optimizer of Keras 3" if holds else "holds (Adam)") in warned[0]
    assert same(ours, way().train())
