"""Norms compared with exact arithmetic, in the whole range."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.numerics.norms import clip_ratio, combined_norm, l2_norm

finite_floats = st.floats(allow_nan=False, allow_infinity=False)


def exact_norm(values: list[float]) -> float:
    """Return the correctly rounded root of the exact sum of squares."""
    square = sum(Fraction(value) ** 2 for value in values)
    if square == 0:
        return 0.0
    shift = max(0, 220 - (square.numerator.bit_length() - square.denominator.bit_length())) // 2 * 2
    root = math.isqrt(square.numerator * 2**shift // square.denominator)
    try:
        return (
            math.ldexp(float(root), -shift // 2)
            if root.bit_length() <= 1000
            else float(Fraction(root, 2 ** (shift // 2)))
        )
    except OverflowError:
        return math.inf


@given(st.lists(finite_floats, max_size=8))
def test_the_norm_is_exact_up_to_rounding_in_the_whole_range(values):
    assert l2_norm(values) == pytest.approx(exact_norm(values), rel=1e-14, abs=5e-324)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([0.0, -0.0], 0.0),
        ([3e-300, 4e-300], 5e-300),
        ([3e300, -4e300], 5e300),
        ([5e-324], 5e-324),
        ([1.7e308, 1.7e308], math.inf),
        ([1.0, math.inf], math.inf),
        ([1.0, -math.inf], math.inf),
    ],
)
def test_edge_cases(values, expected):
    assert l2_norm(values) == pytest.approx(expected, rel=1e-15)


def test_a_nan_makes_the_norm_nan_even_with_inf():
    assert math.isnan(l2_norm([math.inf, math.nan, 1.0]))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_squares_do_not_overflow_in_a_narrow_dtype(dtype):
    values = np.array([3e4, 4e4], dtype)
    assert l2_norm(values) == pytest.approx(5e4, rel=1e-2)


@given(st.lists(st.lists(st.floats(-1e150, 1e150), max_size=5), min_size=1, max_size=5))
def test_the_norm_of_a_concatenation_is_the_combined_norm_of_its_parts(parts):
    whole = l2_norm([value for part in parts for value in part])
    assert float(combined_norm([l2_norm(part) for part in parts])) == pytest.approx(whole, rel=1e-12, abs=1e-320)


def test_absent_parts_do_not_count_and_all_absent_is_nan():
    combined = combined_norm([[3.0, np.nan, 4.0], [np.nan, np.nan, np.nan], [0.0, 0.0, np.nan]])
    np.testing.assert_array_equal(combined, [5.0, np.nan, 0.0])


def test_combining_does_not_overflow():
    assert float(combined_norm([3e200, 4e200])) == pytest.approx(5e200)
    assert float(combined_norm([np.inf, 1.0])) == np.inf


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
def test_edge_cases_of_the_clip_ratio(before, after, ratio):
    np.testing.assert_array_equal(clip_ratio([before], [after]), [ratio])
