"""With the policy skip, a bad batch leaves no trace in the training."""

from __future__ import annotations

import pytest

from tests.matrix.network import BAD_STEP, FEW_STEPS, batches
from tests.matrix.ways import WAYS, assert_same


@pytest.mark.parametrize(
    "way", [pytest.param(way, id=way.name) for way in WAYS if "skip" in way.policies and way.is_whole]
)
def test_a_skipped_batch_equals_a_batch_that_was_never_there(way, tmp_path):
    bad = batches(steps=FEW_STEPS, bad=True)
    good = [batch for number, batch in enumerate(bad) if number != BAD_STEP]
    assert_same(way, way.train(tmp_path, "skip", bad), way.train(None, "skip", good))
