"""Several optimizers in one step: one row, one verdict, and all of their updates or none."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.errors import SetupError
from tests.watch.networks import BATCHES, POISONED, Adversaries, batches, same


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("are_given", [True, False])
def test_a_step_leaves_one_row_with_the_gradients_of_all(tmp_path, read, are_given):
    net = Adversaries()
    watch = net.watch = Watch(tmp_path, net.variables if are_given else None)
    step, bare = watch.step(net.step), Adversaries()
    bare_step = tf.function(bare.step)
    for x, y in batches():
        step(x, y)
        bare_step(x, y)
    watch.close()
    back = read(tmp_path)
    assert (back.verdict.status, back.verdict.steps_seen, len(back.log.sessions)) == ("finite", BATCHES, 1)
    norms = back.column("grad_norm")
    assert norms.shape == (BATCHES, 8)
    assert (norms > 0).all()
    together = np.sqrt(np.square(norms.astype(np.float64)).sum(axis=1))
    assert back.column("global_norm").ravel() == pytest.approx(together, rel=1e-5)
    assert same(net.state(), bare.state())


def test_a_bad_second_update_undoes_the_first(tmp_path):
    watch = Watch(tmp_path)
    net, bad = Adversaries(watch), batches()
    step = watch.step(net.step)
    for x, y in bad[:POISONED]:
        step(x, y)
    before = net.state()
    with pytest.raises(NonFiniteError) as caught:
        step(bad[POISONED][0], bad[POISONED][1] * 1e22)
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.op.type, first.source.function) == (POISONED, "loss", "Square", "step")
    assert same(net.state(), before)


def test_outside_of_a_watched_step_the_variables_must_be_known(tmp_path):
    net = Adversaries(Watch(tmp_path))
    for optimizer, model in zip(net.optimizers, (net.critic, net.generator), strict=True):
        optimizer.build(model.trainable_variables)
    with pytest.raises(SetupError, match=r"list every variable in Watch\(variables=...\)"):
        tf.function(net.step)(*batches()[0])


class Pair:
    """Two weights, each with an optimizer; the update of the first comes first, in a branch, in every fifth step."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.weights = [keras.Variable([1.0], name=name) for name in ("first", "second")]
        self.optimizers = [keras.optimizers.SGD(0.25), keras.optimizers.SGD(0.25)]

    def update(self, number: int, x: tf.Tensor) -> None:
        weight = self.weights[number]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight.value * x)
        pairs = list(zip(tape.gradient(loss, [weight.value]), [weight], strict=True))
        self.watch.apply_gradients(self.optimizers[number], pairs, loss=loss)

    def step(self, number: tf.Tensor, x: tf.Tensor) -> None:
        if number % 5 == 0:
            self.update(0, x[0])
        self.update(1, x[1])

    def state(self) -> list[float]:
        return [float(weight.value[0]) for weight in self.weights]


def test_a_step_whose_first_update_is_in_a_branch_that_does_not_run_has_a_row_of_its_own(tmp_path, read):
    pair = Pair(Watch(tmp_path, window=4))
    step = pair.watch.step(pair.step)
    for number in range(8):
        step(tf.constant(number), tf.constant([1.0, 0.5]))
    with pytest.raises(NonFiniteError) as caught:
        step(tf.constant(8), tf.constant([1.0, np.nan]))
    assert caught.value.verdict.first.step == 8
    assert pair.state() == [0.5, 0.0]
    norms = read(tmp_path).column("grad_norm")
    assert np.isnan(norms[:8, 0]).tolist() == [False, True, True, True, True, False, True, True]
    assert norms[:8, 1].tolist() == [0.5] * 8
    assert np.isfinite(read(tmp_path).column("weight_norm")[:8]).all()


@pytest.mark.parametrize("bad", [0, 1])
def test_a_bad_update_in_a_branch_and_the_one_after_it_are_skipped_together(bad, tmp_path, read):
    pair = Pair(Watch(tmp_path, policy="skip"))
    step = pair.watch.step(pair.step)
    step(tf.constant(1), tf.constant([1.0, 1.0]))
    step(tf.constant(5), tf.constant([np.nan if place == bad else 1.0 for place in range(2)]))
    assert pair.state() == [1.0, 0.75]
    step(tf.constant(5), tf.constant([1.0, 1.0]))
    pair.watch.close()
    assert pair.state() == [0.75, 0.5]
    verdict = read(tmp_path).verdict
    assert (verdict.first.step, verdict.skipped_steps, verdict.steps_seen) == (1, 1, 3)


def test_a_loss_scale_of_the_second_optimizer_alone_may_overflow(tmp_path, read):
    first = keras.Variable([1.0], name="first")
    second = keras.Variable(tf.ones([1], tf.float16), dtype="float16", name="second")
    plain = keras.optimizers.SGD(0.5)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=2.0**17)
    watch = Watch(tmp_path)

    @watch.step
    def step():
        for weight, optimizer in ((first, plain), (second, scaled)):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.cast(weight.value, tf.float32))
                target = optimizer.scale_loss(loss)
            pairs = list(zip(tape.gradient(target, [weight.value]), [weight], strict=True))
            watch.apply_gradients(optimizer, pairs, loss=loss)

    for _ in range(4):
        step()
    watch.close()
    assert read(tmp_path).verdict.status == "finite"
    assert (first.numpy().tolist(), second.numpy().tolist()) == ([-1.0], [0.0])


def test_an_optimizer_that_joins_after_the_first_step_is_named_and_training_goes_on(tmp_path, read):
    pair = Pair(Watch(tmp_path))

    @pair.watch.step
    def step(joins):
        for number in range(2 if joins else 1):
            pair.update(number, tf.constant(1.0))

    step(False)
    with pytest.warns(UserWarning, match=r"does not watch variable 'second': it came after the first step"):
        step(True)
    pair.watch.close()
    assert pair.state() == [0.5, 0.75]
    assert read(tmp_path).verdict.steps_seen == 2
