"""Watching does not change the training, whatever the way to train."""

from __future__ import annotations

import pytest

from tests.matrix.network import batches
from tests.matrix.ways import WAYS, assert_same


@pytest.mark.parametrize("way", [pytest.param(way, id=way.name) for way in WAYS])
def test_two_hundred_watched_steps_equal_unwatched_steps(way, tmp_path, read):
    assert_same(way, way.train(tmp_path, "raise", batches()), way.train(None, "raise", batches()))
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("finite", 200)
