"""Several optimizers in one step: one row, one verdict, and either all of their updates or none."""

from __future__ import annotations

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


def test_a_bad_second_update_takes_the_first_one_back(tmp_path):
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
