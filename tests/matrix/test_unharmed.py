"""Watching changes no training, in any way to train."""

from __future__ import annotations

import pytest

from tests.matrix.network import batches
from tests.matrix.same import assert_same
from tests.matrix.ways import WAYS


@pytest.mark.parametrize("way", [pytest.param(way, id=way.name) for way in WAYS])
def test_two_hundred_watched_steps_end_as_unwatched_steps_do(way, tmp_path, read):
    assert_same(way, way.train(tmp_path, "raise", batches()), way.train(None, "raise", batches()))
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("finite", 200)
