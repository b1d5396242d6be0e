"""Gradients are measured as the optimizer clips them; outside of a watched step the optimizer is unchanged."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback
from tb_nanwatch.watch.drivers.keras.losses import NotedLosses
from tb_nanwatch.watch.drivers.keras.optimizers import WatchedOptimizer
from tests.watch.drivers.keras.models import BATCHES, Way, adam, arrays, network

GRADIENTS = [np.array([3.0, 4.0], "float32"), np.array([12.0], "float32")]


class Noted:
    """A guard that notes its inputs and lets each update run."""

    def __init__(self, optimizer):
        self.inputs = []
        self.losses = NotedLosses()
        self.variables = [keras.Variable([0.0, 0.0], name="a"), keras.Variable([0.0], name="b")]
        self.optimizer = optimizer
        self.optimizer.build(self.variables)
        self.watched = WatchedOptimizer(optimizer, self.losses, self)

    def prepare(self, optimizer, variables):
        assert optimizer.built

    def apply(self, inputs, update):
        self.inputs.append(inputs)
        return update(inputs.pairs)

    def train(self, gradients):
        self.optimizer.apply_gradients(zip([tf.constant(gradient) for gradient in gradients], self.variables))


@pytest.mark.parametrize(
    ("clip", "norms"),
    [({"clipnorm": 2.0}, [2.0, 2.0]), ({"global_clipnorm": 6.5}, [2.5, 6.0]), ({"clipvalue": 1.0}, [2**0.5, 1.0])],
)
def test_gradients_are_measured_before_and_after_the_optimizers_own_clipping(clip, norms):
    noted, bare = Noted(keras.optimizers.SGD(1.0, **clip)), Noted(keras.optimizers.SGD(1.0, **clip))
    with noted.losses.listening():
        noted.train(GRADIENTS)
    bare.train(GRADIENTS)
    (inputs,) = noted.inputs
    assert [np.linalg.norm(raw) for raw in inputs.raw] == [5.0, 12.0]
    np.testing.assert_allclose([np.linalg.norm(after) for after, _ in inputs.pairs], norms, rtol=1e-6)
    assert [v.numpy().tolist() for v in noted.variables] == [v.numpy().tolist() for v in bare.variables]
    assert "_clip_gradients" not in vars(noted.optimizer)
    assert bare.inputs == []


def test_a_fixed_loss_scale_is_removed_from_the_measure_and_not_from_the_update():
    noted = Noted(keras.optimizers.SGD(1.0, loss_scale_factor=8.0))
    with noted.losses.listening():
        noted.train([8 * gradient for gradient in GRADIENTS])
    assert [np.linalg.norm(gradient) for gradient, _ in noted.inputs[0].pairs] == [5.0, 12.0]
    assert noted.variables[1].numpy().tolist() == [-12.0]


def test_a_restored_optimizer_has_its_own_methods():
    noted = Noted(keras.optimizers.SGD(1.0))
    noted.watched.restore()
    assert not {"apply", "scale_loss"} & vars(noted.optimizer).keys()


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_the_run_has_the_norms_after_clipping(clip, tmp_path, read):
    way = Way(network(optimizer=adam(**{clip: 0.01})), *arrays())
    way.train(NanWatchCallback(tmp_path))
    back = read(tmp_path)
    sizes = np.sqrt([np.prod(variable.shape) for variable in back.session.header.variables])
    clipped = back.column("clipped_norm")
    assert len(clipped) == BATCHES
    assert {
        "clipnorm": (clipped <= 0.01001).all(),
        "global_clipnorm": np.allclose(back.column("clipped_global_norm"), 0.01, rtol=1e-4),
        "clipvalue": (clipped <= 0.01001 * sizes).all(),
    }[clip]
    assert (back.column("grad_norm")[:, -1] > 0.01).all()
