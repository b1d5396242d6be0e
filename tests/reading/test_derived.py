"""Columns that a log leaves out are derived from others."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tb_nanwatch.numerics.spans import thin_to
from tb_nanwatch.reading.derived import with_derived
from tb_nanwatch.reading.selection import select_columns
from tb_nanwatch.schema.records import ColumnKey
from tests.event_files import HEADER, steps_of

GRADS = np.array([[3.0, 1.0, 2.0, math.nan], [4.0, 2.0, math.inf, math.nan]])
KEPT = {
    "clipped_norm": {"max", "mean", "count", "nonfinite", "first_nonfinite", "kinds"},
    "clipped_global_norm": {"max", "mean", "count", "nonfinite", "first_nonfinite", "kinds"},
    "clip_ratio": {"min", "mean", "count", "nonfinite", "first_nonfinite", "kinds"},
}


def derived(series, *, clip="none"):
    return with_derived(series, dataclasses.replace(HEADER, clip=clip))


@pytest.mark.parametrize("clip", ["scale", "other"])
def test_a_session_with_clipping_stays_as_it_is(clip):
    series = steps_of(0, 1)
    assert derived(series, clip=clip) is series


def test_norms_after_clipping_equal_those_before():
    series = derived(steps_of(0, 1, grad_norm=GRADS, global_norm=[5.0, 6.0]))
    for stat, source in (("clipped_norm", "grad_norm"), ("clipped_global_norm", "global_norm")):
        for keeps in KEPT[stat]:
            np.testing.assert_array_equal(series.column(stat, keeps), series.column(source, keeps))
    assert series.column("clipped_norm", "max")[0, :3].tolist() == [3.0, 1.0, 2.0]


def test_the_clip_ratio_is_one_for_every_gradient():
    series = derived(steps_of(0, 1, grad_norm=GRADS))
    nan = math.nan
    for keeps in ("min", "mean"):
        np.testing.assert_array_equal(series.column("clip_ratio", keeps), [[1, 1, 1, nan], [1, 1, nan, nan]])
    assert series.column("clip_ratio", "count").tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert series.column("clip_ratio", "kinds").tolist() == [[0] * 4] * 2
    assert series.column("clip_ratio", "first_nonfinite").tolist() == [[-1] * 4] * 2


def test_derived_statistics_are_complete_and_can_be_merged():
    series = derived(steps_of(0, 3))
    for stat, kept in KEPT.items():
        assert {key.keeps for key in series.columns if key.stat == stat} == kept
    assert thin_to(select_columns(series, KEPT), 1).column("clip_ratio", "count").tolist() == [[4] * 4]


def test_written_columns_are_kept():
    written = steps_of(0, 1, header=dataclasses.replace(HEADER, clip="other"), clipped_norm=0.5, clip_ratio=0.25)
    series = derived(written)
    for stat, number in (("clipped_norm", 0.5), ("clip_ratio", 0.25)):
        key = ColumnKey(stat, "mean")
        assert series.columns[key] is written.columns[key]
        assert series.columns[key].tolist() == [[number] * 4] * 2


def test_without_gradients_nothing_is_derived():
    series = derived(select_columns(steps_of(0, 1), ["loss"]))
    assert {key.stat for key in series.columns} == {"loss"}
