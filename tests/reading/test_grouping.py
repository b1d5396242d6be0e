"""Layers in place of variables: their norm, their smallest ratio, and whatever was non-finite in any of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tb_nanwatch.reading import grouping
from tb_nanwatch.reading.grouping import grouped
from tb_nanwatch.reading.thinning import only, thinned
from tb_nanwatch.schema.columns import is_shared
from tests.event_files import HEADER, only_at, series_at, steps_of


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


def test_a_layer_saw_all_that_its_variables_saw_in_one_step():
    grads = np.array([[math.nan, math.inf, -math.inf, 1.0]])
    layers = grouped(steps_of(0, 0, grad_norm=grads), "grad_norm", [[0, 1], [2, 3], [1, 2]])
    assert layers.column("grad_norm", "kinds").tolist() == [[1 | 8, 8, 8]]


def test_a_layer_none_of_whose_variables_has_a_gradient_has_none():
    grads = np.array([[math.nan, math.nan, 1.0, math.nan]])
    layers = grouped(steps_of(0, 0, grad_norm=grads), "grad_norm", [[0, 1], [2, 3]])
    np.testing.assert_array_equal(layers.column("grad_norm", "max"), [[math.nan, 1.0]])


def test_a_norm_whose_square_no_float32_holds_is_still_one():
    layers = grouped(steps_of(0, 0, grad_norm=[[3e30, 4e30, 0.0, 0.0]]), "grad_norm", [[0, 1]])
    assert layers.column("grad_norm", "max")[0, 0] == np.float32(5e30)


def test_a_layer_was_measured_in_as_many_steps_as_the_variable_that_was_in_most():
    grads = np.array([[1.0, math.nan, 1.0, 1.0]] * 2 + [[1.0, 1.0, 1.0, math.nan]])
    grads[1, 0] = math.nan
    whole = thinned(steps_of(0, 2, grad_norm=grads), 1)
    layers = grouped(whole, "grad_norm", [[0, 1], [2, 3]])
    assert whole.column("grad_norm", "nonfinite").tolist() == [[1, 2, 0, 1]]
    assert layers.column("grad_norm", "nonfinite").tolist() == [[2, 1]]
    assert layers.column("grad_norm", "count").tolist() == [[2, 3]]


def test_variables_may_stand_in_any_order():
    layers = grouped(steps_of(0, 0, grad_norm=[[3.0, 5.0, 4.0, 12.0]]), "grad_norm", [[0, 2], [3, 1]])
    assert layers.column("grad_norm", "max").tolist() == [[5.0, 13.0]]


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_it_does_not_matter_how_many_rows_are_taken_at_once(monkeypatch, at_once):
    monkeypatch.setattr(grouping, "_ROWS_AT_ONCE", at_once)
    grads = np.arange(12.0).reshape(6, 2)[:, [0, 0, 1, 1]]
    layers = grouped(only(steps_of(0, 5, grad_norm=grads), ["grad_norm"]), "grad_norm", [[0], [2], [3]])
    assert layers.column("grad_norm", "max").tolist() == [[2.0 * n, 2 * n + 1, 2 * n + 1] for n in range(6)]


def test_what_all_variables_share_all_layers_share():
    layers = grouped(steps_of(0, 5), "grad_norm", [[0, 1], [2, 3]])
    for keeps in ("count", "nonfinite", "first_nonfinite", "kinds"):
        assert is_shared(layers.column("grad_norm", keeps))
    assert layers.column("grad_norm", "count").tolist() == [[1, 1]] * 6


def test_all_variables_together_are_one_column():
    together = grouped(steps_of(0, 5, grad_norm=[[2.0] * 4] * 6), "grad_norm", [range(4)])
    assert {key.keeps: column.shape for key, column in together.columns.items()} == dict.fromkeys(
        ("min", "max", "mean", "count", "nonfinite", "first_nonfinite", "kinds"), (6, 1)
    )
    assert together.column("grad_norm", "max").tolist() == [[4.0]] * 6


def test_no_layers_have_no_columns():
    assert grouped(steps_of(0, 5), "grad_norm", []).column("grad_norm", "max").shape == (6, 0)


def test_an_empty_series_has_layers_without_steps():
    empty = steps_of(0, 5).rows(slice(0, 0))
    assert grouped(empty, "grad_norm", [[0, 1], [2, 3]]).column("grad_norm", "max").shape == (0, 2)
