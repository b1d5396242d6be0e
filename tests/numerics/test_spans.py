"""The merge of spans: the grouping of steps does not change the facts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.numerics import spans
from tb_nanwatch.numerics.spans import concatenate, merge_alike, merge_spans, single_steps, thin_to
from tb_nanwatch.schema.records import Series
from tests.strategies import partitions, single_step_series

EXACT = ["min", "max", "count", "nonfinite", "first_nonfinite", "kinds"]


def assert_equal(a: Series, b: Series) -> None:
    assert a.first_step.tolist() == b.first_step.tolist()
    assert a.last_step.tolist() == b.last_step.tolist()
    assert a.columns.keys() == b.columns.keys()
    for key in a.columns:
        if key.keeps in EXACT:
            np.testing.assert_array_equal(a.columns[key], b.columns[key])
        else:
            assert_same_mean(
                a.columns[key], b.columns[key], maximum=b.column(key.stat, "max"), minimum=b.column(key.stat, "min")
            )


def assert_same_mean(a: np.ndarray, b: np.ndarray, *, maximum: np.ndarray, minimum: np.ndarray) -> None:
    """Compare means relative to the averaged numbers: large numbers of opposite sign cancel to a small mean."""
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    scale = np.fmax(np.abs(maximum.astype(np.float64)), np.abs(minimum.astype(np.float64)))
    apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    assert np.all(np.isnan(b) | (apart <= 1e-5 * scale + 1e-30))


@given(st.data())
def test_merging_is_associative(data):
    steps = data.draw(single_step_series())
    fine = data.draw(partitions(len(steps)))
    coarse = data.draw(partitions(len(fine)))
    in_two_merges = merge_spans(merge_spans(steps, fine), coarse)
    assert_equal(in_two_merges, merge_spans(steps, [fine[start] for start in coarse]))


@given(st.data())
def test_the_fast_path_for_long_spans_gives_the_same_result(data):
    steps = data.draw(single_step_series())
    starts = data.draw(partitions(len(steps)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_LONG_RUN", -1)
        merged = merge_spans(steps, starts)
    assert_equal(merged, merge_spans(steps, starts))


@given(st.data())
def test_a_span_summarizes_its_steps(data):
    steps = data.draw(single_step_series())
    merged = merge_spans(steps, [0])
    for stat in ("grad_norm", "loss"):
        value, kinds = steps.column(stat, "max"), steps.column(stat, "kinds")
        measured = np.isfinite(value)
        for column in range(value.shape[1]):
            finite, bad = value[measured[:, column], column], kinds[:, column] != 0
            extremes = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
            np.testing.assert_array_equal([merged.column(stat, k)[0, column] for k in ("min", "max")], extremes)
            assert merged.column(stat, "count")[0, column] == len(finite)
            assert merged.column(stat, "nonfinite")[0, column] == bad.sum()
            first = steps.first_step[bad][0] if bad.any() else -1
            assert merged.column(stat, "first_nonfinite")[0, column] == first
            mean = finite.astype(np.float64).mean() if len(finite) else np.nan
            scale = np.abs(finite).max(initial=0)
            np.testing.assert_allclose(merged.column(stat, "mean")[0, column], mean, rtol=0, atol=1e-5 * scale + 1e-30)


@given(st.data(), st.integers(1, 30))
def test_thinning_fits_the_width_and_keeps_peaks_and_first_steps(data, width):
    steps = data.draw(single_step_series(max_size=60))
    thin = thin_to(steps, width)
    assert 1 <= len(thin) <= max(width, 1)
    assert_equal(merge_spans(thin, [0]), merge_spans(steps, [0]))


def test_thinning_returns_a_short_series_itself():
    steps = single_steps(np.arange(3), {"loss": np.ones((3, 1))}, {"loss": np.zeros((3, 1), np.uint8)})
    assert thin_to(steps, 3) is steps


@given(st.data())
def test_concatenating_the_parts_of_a_series_restores_it(data):
    steps = data.draw(single_step_series(min_size=2))
    cut = data.draw(st.integers(1, len(steps) - 1))
    assert_equal(concatenate([steps.rows(slice(cut)), steps.rows(slice(cut, None))]), steps)


def test_an_unmeasured_step_counts_as_neither_finite_nor_bad():
    values, kinds = np.array([[1.0], [np.nan], [np.nan]]), np.array([[0], [0], [2]], np.uint8)
    steps = single_steps(np.array([5, 6, 7]), {"loss": values}, {"loss": kinds})
    assert steps.column("loss", "count")[:, 0].tolist() == [1, 0, 0]
    assert steps.column("loss", "nonfinite")[:, 0].tolist() == [0, 0, 1]
    assert steps.column("loss", "first_nonfinite")[:, 0].tolist() == [-1, -1, 7]


@pytest.mark.filterwarnings("error")
def test_a_norm_beyond_float32_is_clipped_to_its_largest_number():
    steps = np.arange(2)
    norms = {"grad_norm": np.array([[1.0], [5e38]])}
    series = single_steps(steps, norms, {"grad_norm": np.zeros((2, 1), np.uint8)})
    assert series.column("grad_norm", "max").ravel().tolist() == [1.0, float(np.finfo(np.float32).max)]


@pytest.mark.parametrize("stat", ["loss", "grad_norm"])
def test_means_of_numbers_near_the_limit_do_not_overflow(stat):
    limit = float(np.finfo(np.float32).max)
    steps = single_steps(np.arange(4), {stat: np.full((4, 1), limit)}, {stat: np.zeros((4, 1), np.uint8)})
    np.testing.assert_allclose(merge_spans(steps, [0]).column(stat, "mean"), [[limit]])


def loss_series(steps: list[int], losses: list[float]) -> Series:
    values = np.array(losses, np.float64)[:, None]
    kinds = np.where(np.isfinite(values), 0, 1).astype(np.uint8)
    return single_steps(np.array(steps), {"loss": values}, {"loss": kinds})


def test_a_step_of_several_replicas_counts_once():
    merged = merge_alike([loss_series([3, 4], [1.0, 2.0]), loss_series([3, 4], [3.0, np.nan])])
    assert merged.first_step.tolist() == [3, 4]
    assert merged.column("loss", "min").ravel().tolist() == [1.0, 2.0]
    assert merged.column("loss", "mean").ravel().tolist() == [2.0, 2.0]
    assert merged.column("loss", "max").ravel().tolist() == [3.0, 2.0]
    assert merged.column("loss", "count").ravel().tolist() == [1, 1]
    assert merged.column("loss", "nonfinite").ravel().tolist() == [0, 1]
    assert merged.column("loss", "first_nonfinite").ravel().tolist() == [-1, 4]


def test_a_step_of_a_single_replica_is_kept():
    merged = merge_alike([loss_series([0, 1, 5], [1.0, 2.0, 3.0]), loss_series([1, 6], [4.0, 5.0])])
    assert merged.first_step.tolist() == [0, 1, 5, 6]
    assert merged.column("loss", "max").ravel().tolist() == [1.0, 4.0, 3.0, 5.0]


def test_overlapping_spans_of_several_replicas_become_one():
    wide = merge_spans(loss_series([0, 1, 2, 3], [1.0, 9.0, 2.0, 3.0]), [0, 2])
    merged = merge_alike([wide, loss_series([1, 2, 3], [5.0, 5.0, 7.0])])
    assert (merged.first_step.tolist(), merged.last_step.tolist()) == ([0, 2], [1, 3])
    assert merged.column("loss", "max").ravel().tolist() == [9.0, 7.0]


@given(single_step_series())
def test_merging_a_series_with_itself_changes_no_fact(series):
    assert_equal(merge_alike([series]), series)
    twice = merge_alike([series, series])
    for key in series.columns:
        if key.keeps in EXACT:
            np.testing.assert_array_equal(twice.columns[key], series.columns[key])
