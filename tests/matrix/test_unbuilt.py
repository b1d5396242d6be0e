"""Watching changes no training whose first step builds the layers or the optimizers."""

from __future__ import annotations

import pytest

from tests.matrix.network import FEW_STEPS, batches
from tests.matrix.same import assert_same
from tests.matrix.ways import WAYS

BUILDING = [pytest.param(way, id=way.name) for way in WAYS if way.builds]


@pytest.mark.parametrize(("built", "policy"), [("layers", "raise"), ("nothing", "skip")])
@pytest.mark.parametrize("way", BUILDING)
def test_a_training_whose_first_step_builds_it_ends_as_it_does_unwatched(way, built, policy, tmp_path, read):
    few = batches(steps=FEW_STEPS)
    possible = policy if policy in way.policies else "raise"
    watched = way.train(tmp_path, possible, few, built=built)
    assert_same(way, watched, way.train(None, "raise", few, built=built))
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("finite", FEW_STEPS)
