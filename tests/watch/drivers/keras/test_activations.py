"""The outputs of layers: an Inf in a finite step gives one note; a NaN raises an alarm, and so does a bad loss."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, Watch


class Masked(keras.layers.Layer):
    """Outputs ``value`` in place of elements below 2: softmax turns -Inf there into 0."""

    def __init__(self, value=-np.inf):
        super().__init__(name="masked")
        self.value = value

    def call(self, x):
        return tf.where(x >= 2, x, tf.cast(self.value, x.dtype))


def train(logdir, last, *, value=-np.inf, policy="raise", optimizer="sgd", **options):
    """Train four steps of a sample whose masked layer has the finite elements 3 and 4; return what is noted."""
    layers = [keras.layers.Dense(4, kernel_initializer="identity", name="in"), Masked(value), last]
    model = keras.Sequential([keras.Input([4]), *layers], name="model")
    layers[0].trainable = False
    head = keras.layers.Dense(1, name="head")
    model.add(head)
    model.compile(optimizer, "mse", **options)
    x = np.array([[3.0, 4.0, 1.0, 1.0]] * 4, "float32")
    callback = NanWatchCallback(logdir, activations_every=2, policy=policy, replay=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, x[:, :1], batch_size=1, shuffle=False, verbose=0, callbacks=[callback])
    return [str(warning.message) for warning in caught if "tb_nanwatch" in str(warning.message)]


NOTE = (
    "tb_nanwatch takes the Inf in the output of 'model/masked' as intended: the loss and the gradients of those steps"
    " are finite; the norms are those of the finite elements"
)
WAYS = [{}, {"jit_compile": True}, {"run_eagerly": True}]


@pytest.mark.parametrize(("way", "policy"), [*((way, "raise") for way in WAYS), ({}, "skip"), ({}, "record")])
def test_an_infinity_in_a_finite_step_is_noted_once(tmp_path, way, policy, read):
    assert train(tmp_path, keras.layers.Softmax(), policy=policy, **way) == [NOTE]
    back = read(tmp_path)
    assert (back.verdict.status, back.verdict.steps_seen, back.verdict.skipped_steps) == ("finite", 4, 0)
    place = back.session.header.tensors.index("model/masked")
    np.testing.assert_allclose(back.column("tensor_norm")[:, place], [5, np.nan, 5, np.nan], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, [0, 0, np.nan, -np.inf]])
def test_a_nan_in_an_output_is_an_alarm_though_the_step_is_finite(tmp_path, value):
    class Finite(keras.layers.Layer):
        def call(self, x):
            return tf.ones_like(x)

    with pytest.raises(NonFiniteError, match="first appeared in the tensor model/masked"):
        train(tmp_path, Finite(), value=value)


def test_an_infinity_that_reaches_the_loss_is_an_alarm_of_its_layer(tmp_path):
    with pytest.raises(NonFiniteError, match="-Inf first appeared in the tensor model/masked"):
        train(tmp_path, keras.layers.Activation("linear"))


def test_gradients_that_overflow_by_the_loss_scale_leave_the_infinity_as_meant(tmp_path, read):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**127)
    notes = train(tmp_path, keras.layers.Softmax(), optimizer=optimizer)
    assert notes == [NOTE.replace("finite;", "finite, but for overflows of the loss scale;")]
    back = read(tmp_path)
    assert (back.verdict.status, back.verdict.skipped_steps > 0) == ("finite", True)


def test_a_tensor_that_the_user_names_alarms_whatever_the_loss(tmp_path):
    weight = tf.Variable([1.0, 2.0])
    watch, optimizer = Watch(tmp_path, [weight], replay=False), keras.optimizers.SGD(0.1)

    @watch.step
    def step():
        with tf.GradientTape() as tape:
            scores = watch.tensor("scores", tf.where([True, False], weight, -np.inf))
            loss = tf.reduce_sum(tf.square(tf.nn.softmax(scores)))
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    with watch, pytest.raises(NonFiniteError, match="-Inf first appeared in the tensor scores"):
        step()


def test_recurrent_layers_have_one_warning_for_what_their_loops_hold(tmp_path):
    keras.utils.set_random_seed(1)
    recurrent = [keras.layers.SimpleRNN(2, return_sequences=True), keras.layers.SimpleRNN(2)]
    model = keras.Sequential([keras.Input([5, 3]), *recurrent, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones([8, 5, 3], "float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, x[:, -1, :1], verbose=0, callbacks=[NanWatchCallback(tmp_path, activations_every=2)])
    warned = [str(warning.message) for warning in caught if "tb_nanwatch" in str(warning.message)]
    assert len(warned) == 1
    assert "does not watch tensors that are made in another function" in warned[0]
