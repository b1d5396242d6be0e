"""The benchmark measures when the browser shows the verdict and then the heatmap."""

from __future__ import annotations

import time

import pytest

from benchmarks.page_cost import PageCost, page_cost

pytestmark = pytest.mark.browser


def test_each_try_measures_the_verdict_and_then_the_heatmap(chromium, tensorboards):
    began = time.perf_counter()
    cost = page_cost(chromium, tensorboards["true"], run="critic", tries=2)
    took_s = time.perf_counter() - began
    assert len(cost.own_s) == len(cost.verdict_s) == len(cost.heatmap_s) == 2
    for verdict_s, heatmap_s in zip(cost.verdict_s, cost.heatmap_s):
        assert 0 < verdict_s < heatmap_s
    assert sum(cost.own_s) + sum(cost.heatmap_s) < took_s


def test_the_time_from_the_address_is_the_sum_of_both_waits_of_a_try():
    cost = PageCost(own_s=(1.0, 5.0, 2.0), verdict_s=(0.5, 0.25, 0.125), heatmap_s=(8.0, 1.0, 4.5))
    assert (cost.verdict_from_address_s, cost.heatmap_from_address_s) == (2.125, 6.5)
