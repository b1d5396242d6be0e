"""Edge cases of the clip ratio."""

from __future__ import annotations

import numpy as np
import pytest

from tb_nanwatch.numerics.clipping import clip_ratio


@pytest.mark.parametrize(
    ("before", "after", "ratio"),
    [
        (10.0, 5.0, 0.5),
        (3.0, 3.0, 1.0),
        (0.0, 0.0, 1.0),
        (1e-300, 0.0, 0.0),
        (1e30, 0.0, 0.0),
        (np.inf, 0.0, np.nan),
        (np.inf, np.inf, np.nan),
        (np.nan, 1.0, np.nan),
        (1.0, np.nan, np.nan),
    ],
)
def test_edge_cases(before, after, ratio):
    np.testing.assert_array_equal(clip_ratio([before], [after]), [ratio])
