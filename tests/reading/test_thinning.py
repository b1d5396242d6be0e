"""What is drawn of a series: nothing that matters may get lost on the way."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.numerics.spans import merge_spans
from tb_nanwatch.reading.grouping import grouped
from tb_nanwatch.reading.thinning import curve, only, thinned, within
from tests.event_files import HEADER, only_at, series_at, steps_of


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(None, None, [0, 4, 8]), (5, None, [4, 8]), (None, 3, [0]), (3, 4, [0, 4]), (7, 7, [4]), (12, 20, [])],
)
def test_a_span_is_kept_if_it_reaches_into_the_range(first, last, expected):
    spans = merge_spans(steps_of(0, 11), [0, 4, 8])
    assert within(spans, first=first, last=last).first_step.tolist() == expected


def test_an_empty_series_is_thin():
    empty = within(steps_of(0, 3), first=9, last=9)
    assert len(thinned(empty, 5)) == 0


def test_layers_are_the_norm_of_their_variables_together():
    grads = np.array([[3.0, 4.0, 5.0, 12.0]] * 2)
    layers = grouped(steps_of(0, 1, grad_norm=grads), "grad_norm", [[0, 1], [2, 3]])
    assert layers.column("grad_norm", "max").tolist() == [[5.0, 13.0]] * 2
    assert {key.stat for key in layers.columns} == {"grad_norm"}


def test_of_ratios_the_smallest_stands_for_the_layer():
    header = dataclasses.replace(HEADER, clip="other")
    ratios = np.array([[0.5, 0.25, math.nan, 1.0]])
    layers = grouped(series_at([0], header=header, clip_ratio=ratios), "clip_ratio", [[0, 1], [2, 3]])
    assert layers.column("clip_ratio", "min").tolist() == [[0.25, 1.0]]


def test_a_layer_remembers_what_was_nonfinite_in_any_of_its_variables():
    grads = only_at(2, math.nan, first=0, last=3, width=4, column=1)
    grads[3, 0] = math.inf
    layers = grouped(steps_of(0, 3, grad_norm=grads), "grad_norm", [[0, 1], [2, 3]])
    whole = thinned(layers, 1)
    assert whole.column("grad_norm", "kinds").tolist() == [[1 | 8, 0]]
    assert whole.column("grad_norm", "first_nonfinite").tolist() == [[2, -1]]


def test_a_variable_without_a_gradient_leaves_its_layer_alone():
    grads = np.array([[3.0, math.nan, 1.0, 1.0]])
    series = steps_of(0, 0, grad_norm=grads)
    layers = grouped(series, "grad_norm", [[0, 1]])
    assert layers.column("grad_norm", "max").tolist() == [[3.0]]


def test_what_is_not_finite_is_none_and_its_kind_stands_beside_it():
    shown = curve(steps_of(0, 2, loss=[1.5, math.nan, math.inf]), "loss", name="loss")
    assert (shown.min, shown.max, shown.mean) == ((1.5, None, None),) * 3
    assert shown.kinds == (0, 1, 8)


def test_what_is_not_kept_is_an_empty_list():
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
    shown = thinned(only(steps_of(0, len(norms) - 1, loss=norms), ["loss"]), spans)
    assert len(shown) <= spans
    firsts = shown.column("loss", "first_nonfinite")
    assert firsts[firsts >= 0].tolist() == [bad % len(norms)]
    if len(norms) > 1:
        assert np.nanmax(shown.column("loss", "max")) == np.nanmax(norms)
        assert np.nanmin(shown.column("loss", "min")) == np.nanmin(norms)
