"""Policy ``"skip"``: a bad batch leaves no trace in training, and is reported."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.guard import state
from tb_nanwatch.watch.tf_internals import run_independently
from tb_nanwatch.watch.variables import dtype_of, source_behind
from tests.watch.networks import BATCHES, POISONED, Adversaries, Stateful, batches, same

INFINITE = 1e30
"""It is finite in float32 and its square is not."""


pytestmark = pytest.mark.usefixtures("as_written")


def trained_without_the_batch(net):
    step = tf.function(net.step)
    for number, (x, y) in enumerate(batches()):
        if number != POISONED:
            step(x, y)
    return net.state()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_goes_on_as_if_the_batch_had_not_been_there(tmp_path, read, jit_compile):
    watch = Watch(tmp_path, policy="skip")
    net = Stateful(watch)
    step = watch.step(net.step, jit_compile=jit_compile)
    for x, y in batches(poison=INFINITE):
        step(x, y)
    watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen, verdict.skipped_steps) == ("nonfinite", BATCHES, 1)
    assert (verdict.first.step, verdict.first.phase, verdict.first.op.type) == (POISONED, "loss", "Square")
    bare = Stateful()
    bare.step = tf.function(bare.step, jit_compile=jit_compile)
    assert same(net.state(), trained_without_the_batch(bare))


def test_two_optimizers_train_as_if_the_batch_had_not_been_there(tmp_path, read):
    watch = Watch(tmp_path, policy="skip")
    net, bad = Adversaries(watch), batches()
    step = watch.step(net.step)
    bad[POISONED] = (bad[POISONED][0], bad[POISONED][1] * 1e22)
    for x, y in bad:
        step(x, y)
    watch.close()
    assert read(tmp_path).column("skipped").ravel().nonzero()[0].tolist() == [POISONED]
    assert same(net.state(), trained_without_the_batch(Adversaries()))


@pytest.fixture
def slow_reads(monkeypatch):
    """Delay each read of a kept value until just before the assignment that it must precede."""

    def read_late(graph, handle):
        with graph.as_default(), graph.control_dependencies(None):
            late = tf.size(tf.sort(tf.random.stateless_uniform([200_000], seed=[1, 2])))
            with tf.control_dependencies([late]):
                value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype_of(source_behind(handle)))
        run_independently(value.op)
        return value

    monkeypatch.setattr(state, "read_first", read_late)


@pytest.mark.usefixtures("slow_reads")
def test_a_variable_assigned_before_and_after_the_update_gets_its_value_from_before_the_step(tmp_path):
    weight = tf.Variable([1.0], name="weight")
    total = tf.Variable([0.0], trainable=False, name="total")
    watch = Watch(tmp_path, policy="skip", replay=False)
    optimizer = keras.optimizers.SGD(0.1)

    @watch.step
    def step(gradient):
        total.assign_add(gradient)
        watch.apply_gradients(optimizer, [(tf.identity(total), weight)])
        total.assign(tf.minimum(total, total + 1.0))

    for gradient in (2.0, float("nan"), 3.0):
        step(tf.constant([gradient]))
    watch.close()
    assert total.numpy().tolist() == [5.0]
    np.testing.assert_allclose(weight.numpy(), [1.0 - 0.1 * 2.0 - 0.1 * 5.0], rtol=1e-6)


def test_it_gives_up_after_max_skips_in_a_row_and_names_the_first(tmp_path):
    watch = Watch(tmp_path, policy="skip", max_skips=3)
    net = Stateful(watch)
    step, (x, y) = watch.step(net.step), batches()[0]
    for factor in (1, np.inf, 1, np.inf, np.inf):
        step(x, y * factor)
    before = net.state()
    with pytest.raises(NonFiniteError, match="From there 3 bad steps in a row were skipped") as caught:
        step(x, y * np.inf)
    assert caught.value.verdict.first.step == 3
    assert same(net.state(), before)


def test_closing_after_it_gave_up_does_not_report_the_same_skips_again(tmp_path):
    weight = tf.Variable([1.0], name="weight")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)

    def train():
        with Watch(tmp_path, policy="skip", max_skips=2) as watch:

            @watch.step
            def step(x):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(tf.math.log(weight * x))
                watch.apply_gradients(optimizer, zip(tape.gradient(loss, [weight]), [weight], strict=True), loss=loss)

            for x in (1.0, -1.0, -1.0, -1.0):
                step(tf.constant(x))

    # Warnings are errors here.
    with pytest.raises(NonFiniteError, match="From there 2 bad steps in a row were skipped"):
        train()


def test_a_good_step_between_bad_ones_begins_the_count_anew(tmp_path):
    watch = Watch(tmp_path, policy="skip", max_skips=2)
    net = Stateful(watch)
    step, (x, y) = watch.step(net.step), batches()[0]
    for factor in (np.inf, 1) * 8:
        step(x, y * factor)
    watch.close()


def test_on_nonfinite_gets_the_verdict_by_every_policy(tmp_path):
    for policy in ("raise", "skip", "record"):
        verdicts = []
        watch = Watch(tmp_path / policy, policy=policy, on_nonfinite=verdicts.append, replay=False)
        net = Stateful(watch)
        step, (x, y) = watch.step(net.step), batches()[0]
        step(x, y)
        with contextlib.suppress(NonFiniteError):
            step(x, y * np.inf)
            watch.close()
        assert [verdict.first.step for verdict in verdicts] == [1]


def test_max_skips_must_be_positive(tmp_path):
    with pytest.raises(SetupError, match="max_skips must be a positive whole number; got 0"):
        Watch(tmp_path, policy="skip", max_skips=0)
