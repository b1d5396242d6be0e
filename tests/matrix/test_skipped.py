"""A skipped bad batch leaves no trace in any way to train."""

from __future__ import annotations

import pytest

from tests.matrix.network import BAD_STEP, FEW_STEPS, batches
from tests.matrix.same import assert_same
from tests.matrix.ways import WAYS


@pytest.mark.parametrize(
    "way", [pytest.param(way, id=way.name) for way in WAYS if "skip" in way.policies and way.is_whole]
)
def test_a_skipped_batch_leaves_no_trace(way, tmp_path):
    bad = batches(steps=FEW_STEPS, bad=True)
    good = [batch for number, batch in enumerate(bad) if number != BAD_STEP]
    assert_same(way, way.train(tmp_path, "skip", bad), way.train(None, "skip", good))
