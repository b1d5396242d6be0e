"""Every way to train, with every policy, gives the same verdict about a bad batch."""

from __future__ import annotations

import pytest

from tb_nanwatch import NonFiniteError
from tests.matrix.network import BAD_STEP, FEW_STEPS, batches
from tests.matrix.ways import WAYS

ROWS = [pytest.param(way, policy, id=f"{way.name}-{policy}") for way in WAYS for policy in way.policies]


def first_place(verdict):
    return verdict.first.step, verdict.first.phase, verdict.first.layer


@pytest.mark.parametrize(("way", "policy"), ROWS)
def test_every_way_reports_the_same_first_step_and_layer(way, policy, tmp_path, read):
    bad = batches(steps=FEW_STEPS, bad=True)
    if policy == "raise":
        with pytest.raises(NonFiniteError) as caught:
            way.train(tmp_path, policy, bad)
        verdict = caught.value.verdict
    else:
        way.train(tmp_path, policy, bad)
        verdict = read(tmp_path).verdict
        assert verdict.steps_seen == FEW_STEPS
        assert verdict.skipped_steps == (policy == "skip")
    operation = verdict.first.op and verdict.first.op.type
    assert operation == ("SqrtGrad" if policy in way.naming else None)
    assert first_place(verdict) == (BAD_STEP, "backward", "root")
    assert first_place(read(tmp_path).verdict) == first_place(verdict)
