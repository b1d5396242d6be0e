"""Variables are combined into layers: their norm, their smallest ratio, and all their non-finite steps."""

from __future__ import annotations

import dataclasses
import math
from weakref import ref

import numpy as np
import pytest

from tb_nanwatch.numerics.spans import thin_to
from tb_nanwatch.reading import grouping
from tb_nanwatch.reading.grouping import LayerCache, group_columns
from tb_nanwatch.reading.selection import select_columns
from tb_nanwatch.schema.columns import is_shared
from tests.event_files import HEADER, only_at, series_at, steps_of


def test_the_norm_of_a_layer_is_the_norm_of_its_variables_together():
    grads = np.array([[3.0, 4.0, 5.0, 12.0]] * 2)
    layers = group_columns(steps_of(0, 1, grad_norm=grads), "grad_norm", [[0, 1], [2, 3]])
    assert layers.column("grad_norm", "max").tolist() == [[5.0, 13.0]] * 2
    assert {key.stat for key in layers.columns} == {"grad_norm"}


def test_the_ratio_of_a_layer_is_the_smallest_of_its_variables():
    header = dataclasses.replace(HEADER, clip="other")
    ratios = np.array([[0.5, 0.25, math.nan, 1.0]])
    layers = group_columns(series_at([0], header=header, clip_ratio=ratios), "clip_ratio", [[0, 1], [2, 3]])
    assert layers.column("clip_ratio", "min").tolist() == [[0.25, 1.0]]


def test_a_layer_keeps_the_non_finite_steps_of_all_its_variables():
    grads = only_at(2, math.nan, first=0, last=3, width=4, column=1)
    grads[3, 0] = math.inf
    layers = group_columns(steps_of(0, 3, grad_norm=grads), "grad_norm", [[0, 1], [2, 3]])
    whole = thin_to(layers, 1)
    assert whole.column("grad_norm", "kinds").tolist() == [[1 | 8, 0]]
    assert whole.column("grad_norm", "first_nonfinite").tolist() == [[2, -1]]


def test_a_variable_without_a_gradient_does_not_change_its_layer():
    grads = np.array([[3.0, math.nan, 1.0, 1.0]])
    series = steps_of(0, 0, grad_norm=grads)
    layers = group_columns(series, "grad_norm", [[0, 1]])
    assert layers.column("grad_norm", "max").tolist() == [[3.0]]


def test_a_layer_has_the_kinds_of_all_its_variables():
    grads = np.array([[math.nan, math.inf, -math.inf, 1.0]])
    layers = group_columns(steps_of(0, 0, grad_norm=grads), "grad_norm", [[0, 1], [2, 3], [1, 2]])
    assert layers.column("grad_norm", "kinds").tolist() == [[1 | 8, 8, 8]]


def test_a_layer_without_any_gradient_has_no_norm():
    grads = np.array([[math.nan, math.nan, 1.0, math.nan]])
    layers = group_columns(steps_of(0, 0, grad_norm=grads), "grad_norm", [[0, 1], [2, 3]])
    np.testing.assert_array_equal(layers.column("grad_norm", "max"), [[math.nan, 1.0]])


def test_a_norm_whose_square_overflows_float32_stays_finite():
    layers = group_columns(steps_of(0, 0, grad_norm=[[3e30, 4e30, 0.0, 0.0]]), "grad_norm", [[0, 1]])
    assert layers.column("grad_norm", "max")[0, 0] == np.float32(5e30)


def test_the_counts_of_a_layer_are_the_largest_of_its_variables():
    grads = np.array([[1.0, math.nan, 1.0, 1.0]] * 2 + [[1.0, 1.0, 1.0, math.nan]])
    grads[1, 0] = math.nan
    whole = thin_to(steps_of(0, 2, grad_norm=grads), 1)
    layers = group_columns(whole, "grad_norm", [[0, 1], [2, 3]])
    assert whole.column("grad_norm", "nonfinite").tolist() == [[1, 2, 0, 1]]
    assert layers.column("grad_norm", "nonfinite").tolist() == [[2, 1]]
    assert layers.column("grad_norm", "count").tolist() == [[2, 3]]


def test_variables_of_a_layer_may_be_in_any_order():
    layers = group_columns(steps_of(0, 0, grad_norm=[[3.0, 5.0, 4.0, 12.0]]), "grad_norm", [[0, 2], [3, 1]])
    assert layers.column("grad_norm", "max").tolist() == [[5.0, 13.0]]


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_the_number_of_rows_at_once_does_not_change_the_result(monkeypatch, at_once):
    monkeypatch.setattr(grouping, "_ROWS_AT_ONCE", at_once)
    grads = np.arange(12.0).reshape(6, 2)[:, [0, 0, 1, 1]]
    layers = group_columns(select_columns(steps_of(0, 5, grad_norm=grads), ["grad_norm"]), "grad_norm", [[0], [2], [3]])
    assert layers.column("grad_norm", "max").tolist() == [[2.0 * n, 2 * n + 1, 2 * n + 1] for n in range(6)]


def test_bookkeeping_shared_by_variables_is_shared_by_layers():
    layers = group_columns(steps_of(0, 5), "grad_norm", [[0, 1], [2, 3]])
    for keeps in ("count", "nonfinite", "first_nonfinite", "kinds"):
        assert is_shared(layers.column("grad_norm", keeps))
    assert layers.column("grad_norm", "count").tolist() == [[1, 1]] * 6


def test_all_variables_together_form_one_column():
    together = group_columns(steps_of(0, 5, grad_norm=[[2.0] * 4] * 6), "grad_norm", [range(4)])
    assert {key.keeps: column.shape for key, column in together.columns.items()} == dict.fromkeys(
        ("min", "max", "mean", "count", "nonfinite", "first_nonfinite", "kinds"), (6, 1)
    )
    assert together.column("grad_norm", "max").tolist() == [[4.0]] * 6


def test_no_groups_give_columns_of_width_zero():
    assert group_columns(steps_of(0, 5), "grad_norm", []).column("grad_norm", "max").shape == (6, 0)


def test_an_empty_series_gives_layers_without_steps():
    empty = steps_of(0, 5).rows(slice(0, 0))
    assert group_columns(empty, "grad_norm", [[0, 1], [2, 3]]).column("grad_norm", "max").shape == (0, 2)


BY_LAYER = [[0, 1], [2, 3]]


def norms(layers, series, *, keeps=("max", "kinds"), groups=BY_LAYER):
    return layers.grouped(series, "grad_norm", keeps=keeps, groups=groups).column("grad_norm", "max").tolist()


def test_the_cache_returns_combined_layers():
    assert norms(LayerCache(), steps_of(0, 1, grad_norm=[[3.0, 4.0, 5.0, 12.0]] * 2)) == [[5.0, 13.0]] * 2


def test_the_cache_combines_layers_once():
    layers, series = LayerCache(), steps_of(0, 9)
    first = layers.grouped(series, "grad_norm", keeps=("max", "kinds"), groups=BY_LAYER)
    assert layers.grouped(series, "grad_norm", keeps=("max", "kinds"), groups=BY_LAYER) is first


def test_each_statistic_and_grouping_has_its_own_entry():
    layers, series = LayerCache(), steps_of(0, 0, grad_norm=[[3.0, 4.0, 5.0, 12.0]], weight_norm=[[6.0, 8.0, 0.0, 0.0]])
    assert norms(layers, series) == [[5.0, 13.0]]
    assert norms(layers, series, groups=[[0], [1, 2, 3]]) == [[3.0, pytest.approx(185**0.5)]]
    weights = layers.grouped(series, "weight_norm", keeps=("max", "kinds"), groups=BY_LAYER)
    assert weights.column("weight_norm", "max").tolist() == [[10.0, 0.0]]
    means = layers.grouped(series, "grad_norm", keeps=("mean", "count"), groups=BY_LAYER)
    assert {key.keeps for key in means.columns} == {"mean", "count"}


def test_the_cache_does_not_keep_a_series_alive():
    layers, series = LayerCache(), steps_of(0, 9)
    norms(layers, series)
    reference = ref(series)
    del series
    assert reference() is None


def test_a_series_that_reuses_an_id_has_its_own_layers(monkeypatch):
    # Python may reuse an id. Here it always does.
    monkeypatch.setattr(grouping, "id", lambda _: 7, raising=False)
    layers = LayerCache()
    for norm in (1.0, 2.0):
        assert norms(layers, steps_of(0, 0, grad_norm=norm), groups=[[0], [1]]) == [[norm, norm]]


def test_the_least_recently_used_layers_go_first(monkeypatch):
    older, newer = steps_of(0, 9), steps_of(0, 9)
    size = grouping._bytes_of(LayerCache().grouped(older, "grad_norm", keeps=("max",), groups=BY_LAYER))
    assert size == 1 + 10 * 2 * 4
    monkeypatch.setattr(grouping, "_CACHE_BYTES", size)
    layers = LayerCache()
    first = layers.grouped(older, "grad_norm", keeps=("max",), groups=BY_LAYER)
    second = layers.grouped(newer, "grad_norm", keeps=("max",), groups=BY_LAYER)
    assert layers.grouped(newer, "grad_norm", keeps=("max",), groups=BY_LAYER) is second
    assert layers.grouped(older, "grad_norm", keeps=("max",), groups=BY_LAYER) is not first
