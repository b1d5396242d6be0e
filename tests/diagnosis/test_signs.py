"""A session gets the right warnings and no false alarm."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose, signs
from tb_nanwatch.diagnosis.signs import Sign, Signs, find_explosion, warnings_about
from tb_nanwatch.numerics.spans import merge_spans
from tb_nanwatch.schema import records
from tb_nanwatch.schema.records import Variable
from tests.event_files import HEADER, series_at, steps_of


def session_of(norms, **columns):
    return SessionLog(HEADER, steps_of(0, len(norms) - 1, global_norm=norms, **columns))


def explosion_of(norms, *, bad_step=None, **columns):
    session = session_of(norms, **columns)
    session = session if bad_step is None else session.before(bad_step)
    return find_explosion(session, is_before_bad=bad_step is not None)


def warning_about(session, kind):
    return next((warning for warning in warnings_about(Signs(session)) if warning.kind == kind), None)


def test_an_explosion_begins_where_the_norm_rises_and_stays():
    norms = [2.0] * 20 + [2e3, 5e3, 8e9]
    found = explosion_of(norms)
    assert (found.first_step, found.before, found.peak, found.spans) == (20, 2.0, pytest.approx(8e9), 3)
    assert warning_about(session_of(norms), "exploding").text == (
        "The gradients explode from step 20 on: their global norm rose from 2, the median until then, to 8e+09."
    )


def test_an_explosion_needs_a_thousandfold_rise():
    assert explosion_of([2.0] * 20 + [1.99e3] * 10) is None


def test_a_norm_that_falls_again_is_no_explosion():
    assert explosion_of([2.0] * 20 + [1e6] * 30 + [2.0]) is None


def test_the_start_of_a_run_is_no_baseline():
    assert explosion_of([2.0] * 4 + [1e6] * 20) is None
    assert explosion_of([2.0] * 10 + [1e6] * 5).first_step == 10


def test_a_spike_in_the_last_steps_of_a_finite_run_is_no_explosion():
    assert explosion_of([2.0] * 50 + [1e9, 1e9]) is None


def test_one_high_step_is_enough_before_a_nonfinite_step():
    norms = [2.0] * 50 + [1e9, math.nan]
    assert explosion_of(norms, bad_step=51).first_step == 50


def test_norms_after_the_bad_step_do_not_count():
    norms = [2.0] * 50 + [math.nan] + [1e9] * 50
    assert explosion_of(norms, bad_step=50) is None


def test_the_norm_of_the_bad_step_itself_does_not_count():
    norms = [2.0] * 50 + [1e9]
    assert explosion_of(norms, bad_step=50) is None
    assert explosion_of([*norms, 1e9], bad_step=51).last_step == 50


def test_a_span_with_the_bad_step_is_not_before_it():
    series = merge_spans(steps_of(0, 19), [*range(10), 10, 15])
    session = SessionLog(HEADER, series)
    assert [int(session.before(step).series.last_step[-1]) for step in (10, 12, 15, 20)] == [9, 9, 14, 19]


def test_gradients_that_rise_from_near_zero_do_not_explode():
    assert explosion_of([1e-9] * 50 + [0.5] * 50) is None
    assert explosion_of([0.0] * 50 + [5.0] * 50) is None


def test_peaks_in_long_spans_are_no_explosion():
    # Every hundredth step is high; merged into spans of 100, every span has a high peak.
    norms = np.where(np.arange(3000) % 100 == 99, 5e3, 1.0)
    norms[:100] = 1.0
    series = merge_spans(steps_of(0, 2999, global_norm=norms), [*range(100), *range(100, 3000, 100)])
    assert find_explosion(SessionLog(HEADER, series)) is None


def test_the_layer_that_grew_most_is_named():
    grads = np.ones((30, 4))
    grads[20:, 2:] = 1e5
    grads[20:, :2] = 1e2
    warning = warning_about(session_of([2.0] * 20 + [1e5] * 10, grad_norm=grads), "exploding")
    assert warning.layer == "l2"
    assert "most of all in the layer l2." in warning.text


def test_no_layer_is_named_if_all_grow_alike():
    assert explosion_of([2.0] * 20 + [1e5] * 10, grad_norm=np.ones((30, 4))).layer is None


@given(st.lists(st.floats(min_value=0.01, max_value=9.0), max_size=200))
def test_a_norm_within_three_orders_of_magnitude_never_explodes(norms):
    if norms:
        assert explosion_of(norms) is None


@given(st.lists(st.floats(min_value=0, max_value=1e30), min_size=11, max_size=80))
def test_the_onset_equals_the_result_of_a_slow_search(norms):
    values = np.float32(norms).astype(np.float64)
    slow = next(
        (
            row
            for row in range(10, len(values) - 2)
            if (median := np.median(values[:row])) > 0 and values[row:].min() >= max(1000 * median, 1.0)
        ),
        None,
    )
    found = explosion_of(values)
    assert (found.first_step if found else None) == slow


CLIPPED = dataclasses.replace(HEADER, clip="other")


def frozen_of(*, ratio, grad, header=CLIPPED, steps=3):
    norms = {"clip_ratio": np.asarray(ratio), "grad_norm": np.asarray(grad)}
    series = series_at(range(steps), header=header, **norms)
    return warning_about(SessionLog(header, series), "frozen")


def test_a_gradient_whose_squares_overflow_and_that_is_clipped_to_zero_is_frozen():
    warning = frozen_of(ratio=[[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, 1]], grad=[[1, 1, 1, 1], *[[1, 1, 2e19, 1]] * 2])
    assert (warning.kind, warning.first_step, warning.layer) == ("frozen", 1, "l2")
    assert warning.text == (
        "From step 1 on, clipping left nothing of the finite gradient of l2/V: a variable whose gradient is clipped to "
        "0 does not learn."
    )


def test_half_precision_freezes_at_a_smaller_norm():
    variables = (*HEADER.variables[:3], Variable("l2/b", "l2", (1,), "float16"))
    header = dataclasses.replace(CLIPPED, variables=variables)
    warning = frozen_of(ratio=[[1, 1, 1, 0]] * 3, grad=[[1, 1, 1, 300]] * 3, header=header)
    assert warning.first_step == 0


def test_a_masked_gradient_is_not_frozen():
    assert frozen_of(ratio=[[1, 1, 0, 0]] * 3, grad=[[1, 1, 5, 5]] * 3) is None


def test_a_clip_that_sets_every_gradient_to_zero_freezes():
    warning = frozen_of(ratio=[[0, 0, 0, 1]] * 3, grad=[[5, 5, 5, 0]] * 3)
    assert (warning.first_step, warning.layer) == (0, None)
    assert "of l1/V and of 2 more:" in warning.text


def test_nothing_is_frozen_if_another_gradient_is_infinite():
    assert frozen_of(ratio=[[0, 0, 0, math.nan]] * 3, grad=[[5, 5, 5, math.inf]] * 3) is None


def test_a_log_without_these_statistics_has_no_warning():
    series = steps_of(0, 5)
    bare = dataclasses.replace(series, columns={})
    assert warnings_about(Signs(SessionLog(HEADER, bare))) == ()


def test_an_entry_in_the_table_is_all_that_a_new_warning_needs(monkeypatch):
    monkeypatch.setitem(signs.WARNINGS, "novelty", lambda _: Sign(3, "l1", "The run is new."))
    verdict = diagnose(RunLog("run", (session_of([1.0] * 10),)))
    assert (verdict.status, verdict.text) == ("warning", "Finite in all 10 steps. The run is new.")
    assert verdict.warnings == (records.Warning(kind="novelty", first_step=3, layer="l1", text="The run is new."),)
