"""Gradients that are added up over micro-batches: norms of each, and the one that was bad."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch

MICROBATCHES = 4
INFINITE = 1e30


class Accumulating:
    """Two layers whose gradients are summed in variables, or within one step."""

    def __init__(self, watch: Watch) -> None:
        keras.utils.set_random_seed(3)
        self.watch = watch
        self.model = keras.Sequential(
            [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(1, name="head")]
        )
        self.model.build((None, 3))
        self.variables = self.model.trainable_variables
        self.optimizer = keras.optimizers.SGD(1e-3)
        self.optimizer.build(self.variables)
        self.sums = [tf.Variable(tf.zeros_like(variable.value), trainable=False) for variable in self.variables]

    def measured(self, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(x) - y))
        gradients = tape.gradient(loss, self.variables)
        self.watch.accumulate(zip(gradients, self.variables, strict=True), loss=loss)
        return gradients

    def microbatch(self, x, y):
        for total, gradient in zip(self.sums, self.measured(x, y), strict=True):
            total.assign_add(gradient)

    def update(self):
        means = [total / MICROBATCHES for total in self.sums]
        self.watch.apply_gradients(self.optimizer, zip(means, self.variables, strict=True))
        for total in self.sums:
            total.assign(tf.zeros_like(total))

    def whole(self, xs, ys):
        parts = [self.measured(xs[number], ys[number]) for number in range(MICROBATCHES)]
        means = [tf.add_n(gradients) / MICROBATCHES for gradients in zip(*parts, strict=True)]
        self.watch.apply_gradients(self.optimizer, zip(means, self.variables, strict=True))


def trainer(way, net):
    """Return a callable that takes the micro-batches of a step."""
    if way == "one step":
        return net.watch.step(net.whole)
    if way == "steps":
        microbatch, update = net.watch.step(net.microbatch), net.watch.step(net.update)
    elif way == "eager":
        microbatch, update = net.microbatch, net.update
    else:
        microbatch, update = tf.function(net.microbatch), tf.function(net.update)

    def step(xs, ys):
        for x, y in zip(tf.unstack(xs), tf.unstack(ys), strict=True):
            microbatch(x, y)
        update()
        if way == "after_step":
            net.watch.after_step()

    return step


def over(step, some):
    for xs, ys in some:
        step(xs, ys)


def batches(*, steps, bad=None):
    random = np.random.default_rng(0)
    x = random.normal(size=(steps, MICROBATCHES, 16, 3)).astype("float32")
    y = random.normal(size=(steps, MICROBATCHES, 16, 1)).astype("float32")
    if bad is not None:
        y[(*bad, 3)] = INFINITE
    return [(tf.constant(a), tf.constant(b)) for a, b in zip(x, y, strict=True)]


@pytest.mark.parametrize("way", ["one step", "steps", "eager", "after_step"])
def test_the_verdict_names_the_micro_batch_whose_loss_was_bad_although_the_total_is_finite(way, tmp_path, read):
    net = Accumulating(Watch(tmp_path))
    step = trainer(way, net)
    with pytest.raises(NonFiniteError) as caught:
        over(step, batches(steps=6, bad=(5, 2)))
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.microbatch) == (5, "loss", 2)
    assert "micro-batch 2" in caught.value.verdict.text
    if way in ("one step", "steps"):
        assert (first.op.type, first.source.function) == ("Square", "measured")
    if way == "steps":
        assert first.samples == (3,)
    net.watch.close()
    assert read(tmp_path).verdict.first.microbatch == 2


def test_norms_are_of_the_total_and_of_one_micro_batch(tmp_path, read):
    net = Accumulating(Watch(tmp_path))
    step = trainer("steps", net)
    (first, *_) = batches(steps=3)
    expected = [np.array([np.linalg.norm(g) for g in net.measured(x, y)]) for x, y in zip(*first, strict=True)]
    net.watch.close()
    net = Accumulating(Watch(tmp_path / "again"))
    step = trainer("steps", net)
    for xs, ys in batches(steps=3):
        step(xs, ys)
    net.watch.close()
    back = read(tmp_path / "again")
    assert back.column("microbatches").ravel().tolist() == [4, 4, 4]
    root_mean_square = np.sqrt(np.mean(np.square(expected), axis=0))
    assert back.column("microbatch_norm")[0] == pytest.approx(root_mean_square, rel=1e-5)
    assert (back.column("grad_norm")[0] <= back.column("microbatch_norm")[0] * 1.00001).all()
    assert back.verdict.warnings == ()


def test_what_is_skipped_is_the_whole_step_and_the_sums_begin_anew(tmp_path, read):
    net, bare = Accumulating(Watch(tmp_path, policy="skip")), Accumulating(Watch(tmp_path / "bare", policy="record"))
    step, bare_step = trainer("steps", net), trainer("steps", bare)
    for number, (xs, ys) in enumerate(batches(steps=8, bad=(5, 2))):
        step(xs, ys)
        if number != 5:
            bare_step(xs, ys)
    net.watch.close()
    bare.watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.skipped_steps, verdict.steps_seen, verdict.first.step) == (1, 8, 5)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(net.variables, bare.variables, strict=True))


def test_a_bad_micro_batch_of_a_call_of_its_own_leaves_no_trace_in_the_statistics_of_layers(tmp_path):
    net = Accumulating(Watch(tmp_path, policy="skip"))
    norm = keras.layers.BatchNormalization()
    norm.build((None, 3))
    inner = net.model

    def normed(x):
        return inner(norm(x, training=True))

    net.model = normed
    step = trainer("steps", net)
    (xs, ys), bad_x = batches(steps=1)[0], np.full((16, 3), np.nan, "float32")
    step(xs, ys)
    step(tf.tensor_scatter_nd_update(xs, [[2]], bad_x[None]), ys)
    assert np.isfinite(norm.moving_mean.numpy()).all()
    step(xs, ys)
    assert all(np.isfinite(variable.numpy()).all() for variable in net.variables)
