"""Every way to train gives the same verdict on a bad batch, under every policy."""

from __future__ import annotations

import pytest

from tb_nanwatch import NonFiniteError
from tests.matrix.network import BAD_STEP, FEW_STEPS, batches
from tests.matrix.ways import WAYS

ROWS = [pytest.param(way, policy, id=f"{way.name}-{policy}") for way in WAYS for policy in way.policies]


def step_phase_layer(verdict):
    return verdict.first.step, verdict.first.phase, verdict.first.layer


@pytest.mark.parametrize(("way", "policy"), ROWS)
def test_every_way_reports_the_same_first_step_and_layer(way, policy, tmp_path, read):
    bad = batches(steps=FEW_STEPS, bad=True)
    if policy == "raise":
        with pytest.raises(NonFiniteError) as caught:
            way.train(tmp_path, policy, bad)
        verdict = caught.value.verdict
        if way.replays:
            assert verdict.first.op.type == "SqrtGrad"
    else:
        way.train(tmp_path, policy, bad)
        verdict = read(tmp_path).verdict
        assert verdict.steps_seen == FEW_STEPS
        assert verdict.skipped_steps == (policy == "skip")
    assert step_phase_layer(verdict) == (BAD_STEP, "backward", "root")
    assert step_phase_layer(read(tmp_path).verdict) == step_phase_layer(verdict)
