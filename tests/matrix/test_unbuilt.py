"""Where the first step builds the layers and optimizers, watching does not change the training."""

from __future__ import annotations

import pytest

from tests.matrix.network import FEW_STEPS, batches
from tests.matrix.ways import WAYS, assert_same

BUILDING = [pytest.param(way, id=way.name) for way in WAYS if way.builds]


@pytest.mark.parametrize(("built", "policy"), [("layers", "raise"), ("nothing", "skip")])
@pytest.mark.parametrize("way", BUILDING)
def test_layers_and_optimizers_built_in_the_first_step_train_as_unwatched(way, built, policy, tmp_path, read):
    few = batches(steps=FEW_STEPS)
    possible = policy if policy in way.policies else "raise"
    watched = way.train(tmp_path, possible, few, built=built)
    assert_same(way, watched, way.train(None, "raise", few, built=built))
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("finite", FEW_STEPS)
