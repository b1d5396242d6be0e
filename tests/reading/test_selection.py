"""The selection of steps and columns for a chart loses no peak and no first bad step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.numerics.spans import merge_spans, thin_to
from tb_nanwatch.reading.selection import curve, select_columns, select_steps
from tests.event_files import steps_of


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(None, None, [0, 4, 8]), (5, None, [4, 8]), (None, 3, [0]), (3, 4, [0, 4]), (7, 7, [4]), (12, 20, [])],
)
def test_a_span_is_kept_if_it_overlaps_the_range(first, last, expected):
    spans = merge_spans(steps_of(0, 11), [0, 4, 8])
    assert select_steps(spans, first=first, last=last).first_step.tolist() == expected


def test_an_empty_series_stays_empty():
    empty = select_steps(steps_of(0, 3), first=9, last=9)
    assert len(thin_to(empty, 5)) == 0


def test_a_non_finite_value_is_none_with_its_kind():
    shown = curve(steps_of(0, 2, loss=[1.5, math.nan, math.inf]), "loss", name="loss")
    assert (shown.min, shown.max, shown.mean) == ((1.5, None, None),) * 3
    assert shown.kinds == (0, 1, 8)


def test_a_merge_that_is_not_kept_is_an_empty_list():
    shown = curve(steps_of(0, 2), "weight_norm", name="l1/V")
    assert (shown.min, shown.max, shown.mean) == ((), (1.0, 1.0, 1.0), ())


@given(
    st.lists(st.floats(min_value=0, max_value=1e6, width=32), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(0, 59),
)
def test_thinning_keeps_every_peak_and_every_first_bad_step(norms, spans, bad):
    norms = np.array(norms)
    norms[bad % len(norms)] = math.nan
    shown = thin_to(select_columns(steps_of(0, len(norms) - 1, loss=norms), ["loss"]), spans)
    assert len(shown) <= spans
    firsts = shown.column("loss", "first_nonfinite")
    assert firsts[firsts >= 0].tolist() == [bad % len(norms)]
    if len(norms) > 1:
        assert np.nanmax(shown.column("loss", "max")) == np.nanmax(norms)
        assert np.nanmin(shown.column("loss", "min")) == np.nanmin(norms)
