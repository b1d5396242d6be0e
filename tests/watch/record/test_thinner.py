"""Thinning on disk: nothing is lost, and a log grows with the logarithm of the run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.numerics.spans import concatenate, merge_spans, single_steps
from tb_nanwatch.schema.records import Series
from tb_nanwatch.watch.record.thinner import BYTES_A_GENERATION, Thinner


def steps(first: int, last: int, *, width: int = 1) -> Series:
    numbers = np.arange(first, last)
    values = np.repeat(((numbers * 7919) % 1000).astype(np.float64)[:, None], width, axis=1)
    kinds = np.repeat((numbers % 997 == 3).astype(np.uint8)[:, None], width, axis=1)
    return single_steps(numbers, {"grad_norm": values}, {"grad_norm": kinds})


def thinned(sizes: list[int]) -> list[tuple[int, Series]]:
    thinner, at, out = Thinner(), 0, []
    for size in sizes:
        out += thinner.add(steps(at, at + size))
        at += size
    return out + list(thinner.rest())


@given(st.lists(st.integers(1, 700), min_size=1, max_size=25))
def test_every_step_is_in_one_span_whatever_the_size_of_a_read(sizes):
    spans = concatenate([series for _, series in thinned(sizes)])
    assert spans.first_step[0] == 0
    assert spans.last_step[-1] == sum(sizes) - 1
    np.testing.assert_array_equal(spans.first_step[1:], spans.last_step[:-1] + 1)
    whole, alone = merge_spans(spans, [0]), merge_spans(steps(0, sum(sizes)), [0])
    for keeps in ("min", "max", "count", "nonfinite", "first_nonfinite", "kinds"):
        np.testing.assert_array_equal(whole.column("grad_norm", keeps), alone.column("grad_norm", keeps))


def test_each_generation_holds_2048_spans_of_twice_as_many_steps():
    spans: dict[int, list[int]] = {}
    for generation, series in thinned([256] * 150):
        spans.setdefault(generation, []).extend((series.last_step - series.first_step + 1).tolist())
    assert {generation: len(lengths) for generation, lengths in spans.items()} == {
        0: 2048,
        1: 2048,
        2: 2048,
        3: 2048,
        4: 480,
    }
    assert all(set(lengths) == {2**generation} for generation, lengths in spans.items())


def test_the_rest_is_one_span_and_later_steps_begin_the_next():
    thinner = Thinner()
    list(thinner.add(steps(0, 2048)))
    assert list(thinner.add(steps(2048, 2049))) == []
    ((generation, rest),) = thinner.rest()
    assert (generation, rest.first_step.tolist(), rest.last_step.tolist()) == (1, [2048], [2048])
    assert list(thinner.rest()) == []
    ((generation, more),) = thinner.add(steps(2049, 2051))
    assert (generation, more.first_step.tolist(), more.last_step.tolist()) == (1, [2049], [2050])


@pytest.mark.parametrize(("variables", "spans"), [(100, 2048), (10_000, 559)])
def test_a_generation_of_many_variables_stays_below_the_limit_of_a_server(variables, spans):
    thinner = Thinner()
    chunks = [chunk for at in range(0, 600, 50) for chunk in thinner.add(steps(at, at + 50, width=variables))][:12]
    first = sum(len(series) for generation, series in chunks if generation == 0)
    assert first == min(spans, 600)
    assert first * variables * 12 <= max(BYTES_A_GENERATION, 64 * variables * 12)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=25), st.data())
def test_a_rest_at_any_place_loses_no_step_and_counts_none_twice(sizes, data):
    thinner, at, out = Thinner(), 0, []
    for size in sizes:
        out += thinner.add(steps(at, at + size))
        at += size
        if data.draw(st.booleans()):
            out += thinner.rest()
    spans = concatenate([series for _, series in [*out, *thinner.rest()]])
    whole, alone = merge_spans(spans, [0]), merge_spans(steps(0, at), [0])
    np.testing.assert_array_equal(spans.first_step[1:], spans.last_step[:-1] + 1)
    for keeps in ("min", "max", "count", "nonfinite", "first_nonfinite", "kinds"):
        np.testing.assert_array_equal(whole.column("grad_norm", keeps), alone.column("grad_norm", keeps))


def test_a_log_grows_with_the_logarithm_of_the_run():
    def spans_of(drains: int) -> int:
        return sum(len(series) for _, series in thinned([4096] * drains))

    assert 2 * 2048 < spans_of(64) - spans_of(8) <= 3 * 2048
