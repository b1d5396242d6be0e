"""Layers that are kept: the right ones, and nothing besides them."""

from __future__ import annotations

from weakref import ref

import pytest

from tb_nanwatch.plugin import layers as layers_module
from tb_nanwatch.plugin.layers import Layers
from tests.event_files import steps_of

BY_LAYER = [[0, 1], [2, 3]]


def norms(layers, series, *, keeps=("max", "kinds"), groups=BY_LAYER):
    return layers.of(series, "grad_norm", keeps=keeps, groups=groups).column("grad_norm", "max").tolist()


def test_layers_have_the_norm_of_their_variables():
    assert norms(Layers(), steps_of(0, 1, grad_norm=[[3.0, 4.0, 5.0, 12.0]] * 2)) == [[5.0, 13.0]] * 2


def test_layers_are_combined_once():
    layers, series = Layers(), steps_of(0, 9)
    first = layers.of(series, "grad_norm", keeps=("max", "kinds"), groups=BY_LAYER)
    assert layers.of(series, "grad_norm", keeps=("max", "kinds"), groups=BY_LAYER) is first


def test_each_question_has_its_own_answer():
    layers, series = Layers(), steps_of(0, 0, grad_norm=[[3.0, 4.0, 5.0, 12.0]], weight_norm=[[6.0, 8.0, 0.0, 0.0]])
    assert norms(layers, series) == [[5.0, 13.0]]
    assert norms(layers, series, groups=[[0], [1, 2, 3]]) == [[3.0, pytest.approx(185**0.5)]]
    weights = layers.of(series, "weight_norm", keeps=("max", "kinds"), groups=BY_LAYER)
    assert weights.column("weight_norm", "max").tolist() == [[10.0, 0.0]]
    means = layers.of(series, "grad_norm", keeps=("mean", "count"), groups=BY_LAYER)
    assert {key.keeps for key in means.columns} == {"mean", "count"}


def test_a_series_that_nobody_needs_any_more_is_not_kept_for_its_layers():
    layers, series = Layers(), steps_of(0, 9)
    norms(layers, series)
    held = ref(series)
    del series
    assert held() is None


def test_a_series_with_the_number_of_one_that_is_gone_has_layers_of_its_own(monkeypatch):
    # Python gives numbers again when it likes; here it always does.
    monkeypatch.setattr(layers_module, "id", lambda _: 7, raising=False)
    layers = Layers()
    for norm in (1.0, 2.0):
        assert norms(layers, steps_of(0, 0, grad_norm=norm), groups=[[0], [1]]) == [[norm, norm]]


def test_layers_that_were_not_looked_at_for_long_go_first(monkeypatch):
    one, two = steps_of(0, 9), steps_of(0, 9)
    each = layers_module._bytes_of(Layers().of(one, "grad_norm", keeps=("max",), groups=BY_LAYER))
    assert each == 1 + 10 * 2 * 4
    monkeypatch.setattr(layers_module, "_BYTES", each)
    layers = Layers()
    first = layers.of(one, "grad_norm", keeps=("max",), groups=BY_LAYER)
    second = layers.of(two, "grad_norm", keeps=("max",), groups=BY_LAYER)
    assert layers.of(two, "grad_norm", keeps=("max",), groups=BY_LAYER) is second
    assert layers.of(one, "grad_norm", keeps=("max",), groups=BY_LAYER) is not first
