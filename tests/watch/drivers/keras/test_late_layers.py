"""Layers that are unknown when ``fit`` begins: built by the first step, or not among the model's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError

BAD_STEP = 2
COMPILED = [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}]


def data() -> np.ndarray:
    """Return four batches of 8; sample 20 is zero, where the gradient of a root is not finite."""
    x = np.random.default_rng(0).uniform(size=(32, 3)).astype("float32")
    x[20] = 0
    return x


class TwoNets(keras.Model):
    """Two layers, each with an optimizer; the loss of the second contains a root."""

    def __init__(self, first: keras.layers.Layer, second: keras.layers.Layer, *, is_held: bool = True) -> None:
        super().__init__()
        self.nets = lambda: (first, second)
        self.first = first
        if is_held:
            self.second = second

    def compile(self, **options) -> None:
        super().compile(**options)
        self.optimizers = [keras.optimizers.SGD(1e-3), keras.optimizers.SGD(1e-3, momentum=0.9)]

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        first, second = self.nets()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(first(x)))
        self.apply(0, tape, loss, first)
        with tf.GradientTape() as tape:
            sizes = tf.reduce_sum(tf.square(second(x) * tf.reduce_min(x)), -1)
            loss = tf.reduce_mean(tf.sqrt(sizes))
        self.apply(1, tape, loss, second)
        return {"loss": loss}

    def apply(self, number, tape, loss, net) -> None:
        gradients = tape.gradient(loss, net.trainable_variables)
        self.optimizers[number].apply_gradients(zip(gradients, net.trainable_variables, strict=True))


def dense(name: str, *, is_built: bool) -> keras.layers.Dense:
    layer = keras.layers.Dense(4, name=name)
    if is_built:
        layer.build((None, 3))
    return layer


def fit(model: TwoNets, tmp_path, **options) -> None:
    model.compile(**options)
    model.fit(data(), batch_size=8, shuffle=False, verbose=0, callbacks=[NanWatchCallback(tmp_path)])


@pytest.mark.parametrize("options", COMPILED, ids=["compiled", "xla", "eager"])
@pytest.mark.parametrize(("is_built", "is_held"), [(False, True), (True, False)])
def test_the_update_of_the_second_optimizer_is_guarded(is_built, is_held, options, tmp_path, read, recwarn):
    first, second = dense("first", is_built=is_built), dense("second", is_built=is_built)
    model = TwoNets(first, second, is_held=is_held)
    with pytest.raises(NonFiniteError) as caught:
        fit(model, tmp_path, **options)
    found = caught.value.verdict.first
    assert (found.step, found.phase) == (BAD_STEP, "backward")
    assert {finding.name for finding in caught.value.alert.findings} == {"second/kernel", "second/bias"}
    assert [int(optimizer.iterations.numpy()) for optimizer in model.optimizers] == [BAD_STEP, BAD_STEP]
    assert all(np.isfinite(variable.numpy()).all() for variable in (*first.variables, *second.variables))
    back = read(tmp_path)
    assert [variable.name for variable in back.session.header.variables] == [
        "first/kernel",
        "first/bias",
        "second/kernel",
        "second/bias",
    ]
    assert np.isfinite(back.column("grad_norm")[:BAD_STEP]).all()
    assert (back.column("grad_norm")[:BAD_STEP] > 0).all()
    assert [str(caught.message) for caught in recwarn if "nanwatch" in str(caught.message)] == []
