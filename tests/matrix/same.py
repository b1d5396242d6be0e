"""Compares the results of two trainings."""

from __future__ import annotations

import numpy as np

from tests.matrix.ways import State, Way


def assert_same(way: Way, ours: State, theirs: State) -> None:
    """Compare the state that two trainings left: bit for bit, or up to rounding where XLA compiles."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if way.exact:
            assert np.array_equal(a, b)
        else:
            assert np.allclose(a, b, rtol=1e-6, atol=1e-7)
