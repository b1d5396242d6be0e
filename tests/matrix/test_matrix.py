"""Every way to train, with every policy, on good and bad batches: one answer, and training left as it is."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError
from tests.matrix.network import BAD_STEP, FEW_STEPS, batches
from tests.matrix.ways import WAYS

ROWS = [pytest.param(way, policy, id=f"{way.name}-{policy}") for way in WAYS for policy in way.policies]
EACH = [pytest.param(way, id=way.name) for way in WAYS]


@pytest.fixture(autouse=True)
def as_written():
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "remapping": False})
    yield
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True, "remapping": True})


def told(verdict):
    return verdict.first.step, verdict.first.phase, verdict.first.layer


def assert_same(way, ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if way.exact:
            assert np.array_equal(a, b)
        else:
            assert np.allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("way", EACH)
def test_watching_leaves_two_hundred_steps_as_they_are(way, tmp_path, read):
    assert_same(way, way.train(tmp_path, "raise", batches()), way.train(None, "raise", batches()))
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("finite", 200)


@pytest.mark.parametrize(("way", "policy"), ROWS)
def test_the_first_step_and_layer_are_the_same_whichever_way(way, policy, tmp_path, read):
    bad = batches(steps=FEW_STEPS, bad=True)
    if policy == "raise":
        with pytest.raises(NonFiniteError) as caught:
            way.train(tmp_path, policy, bad)
        verdict = caught.value.verdict
        if way.replays:
            assert (verdict.first.op.type, verdict.first.source.function) == ("SqrtGrad", verdict.first.source.function)
    else:
        way.train(tmp_path, policy, bad)
        verdict = read(tmp_path).verdict
        assert verdict.steps_seen == FEW_STEPS
        assert verdict.skipped_steps == (policy == "skip")
    assert told(verdict) == (BAD_STEP, "backward", "root")
    assert told(read(tmp_path).verdict) == told(verdict)


@pytest.mark.parametrize(
    "way", [pytest.param(way, id=way.name) for way in WAYS if "skip" in way.policies and way.is_whole]
)
def test_a_skipped_batch_leaves_no_trace(way, tmp_path):
    bad = batches(steps=FEW_STEPS, bad=True)
    good = [batch for number, batch in enumerate(bad) if number != BAD_STEP]
    assert_same(way, way.train(tmp_path, "skip", bad), way.train(None, "skip", good))
