"""Exact counts, for dtypes with and without NaN."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as nps

from tb_nanwatch.numerics.finiteness import bad_samples, count_nonfinite, kinds_of
from tb_nanwatch.schema.records import Counts


@given(nps.arrays(np.float32, nps.array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_finite_and_non_finite_counts_add_up_to_the_size(values):
    counts = count_nonfinite(values)
    assert counts.size == values.size
    assert counts.size - counts.nonfinite == np.isfinite(values).sum()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.float32, np.float64])
def test_every_floating_dtype_is_counted(dtype):
    values = np.array([1.0, np.nan, np.inf, np.inf, -np.inf], dtype)
    assert count_nonfinite(values) == Counts(size=5, nan=1, pos_inf=2, neg_inf=1)


@pytest.mark.parametrize("values", [np.arange(3), np.array([True]), np.array(["nan"]), np.array([b"inf"])])
def test_dtypes_without_nan_have_no_non_finite_elements(values):
    assert count_nonfinite(values) == Counts(size=values.size, nan=0, pos_inf=0, neg_inf=0)
    assert bad_samples(values) == ()


def test_bad_samples_are_indices_of_the_leading_dimension():
    values = np.zeros((5, 2, 2))
    values[1, 0, 1], values[4, 1, 1] = np.nan, -np.inf
    assert bad_samples(values) == (1, 4)
    assert bad_samples(values, limit=1) == (1,)
    assert bad_samples(np.float32(np.nan)) == ()
    assert bad_samples(np.zeros((3, 0))) == ()


def test_a_norm_reveals_nan_or_inf_without_sign():
    assert kinds_of([1.0, np.nan, np.inf, 0.0]).tolist() == [0, 1, 8, 0]
