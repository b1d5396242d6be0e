"""The origin is the first of the non-finite values of a step or run."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog, origin_of_alert
from tb_nanwatch.diagnosis.origin import first_of_run
from tb_nanwatch.numerics.spans import merge_spans
from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Replay, Series, Variable
from tests.event_files import HEADER, VARIABLES, only_at, series_at, steps_of
from tests.replays import REPLAY, SQUARE, THREE_INF, link

NO_STEPS = Series(np.zeros(0, np.int64), np.zeros(0, np.int64), {})
ONE_NAN = Counts(size=4, nan=1, pos_inf=0, neg_inf=0)
ONE_INF = Counts(size=4, nan=0, pos_inf=1, neg_inf=0)


def alert_of(*findings, step=7, first_step=0, window=NO_STEPS, session=0):
    return Alert(step, session, first_step, "raised", findings, window)


def first_of(series, *alerts, header=HEADER):
    found = first_of_run(RunLog("run", (SessionLog(header, series, alerts),)))
    return found.origin if found else None


@pytest.mark.parametrize(
    ("role", "name", "place"),
    [
        ("input", "x", (7, "input", None, None, "x")),
        ("weight", "l1/b", (6, "update", "l1", "l1/b", None)),
        ("tensor", "values", (7, "forward", None, None, "values")),
        ("loss", "loss", (7, "loss", None, None, None)),
        ("gradient", "l1/b", (7, "backward", "l1", "l1/b", None)),
        ("clipped", "l1/b", (7, "clip", "l1", "l1/b", None)),
    ],
)
def test_each_role_has_its_step_and_phase(role, name, place):
    origin = origin_of_alert(HEADER, alert_of(Finding(role, name, ONE_INF)))
    assert (origin.step, origin.phase, origin.layer, origin.variable, origin.tensor) == place
    assert (origin.kind, origin.counts, origin.evidence) == ("pos_inf", ONE_INF, "records")


def test_the_first_phase_in_data_flow_is_the_origin_whatever_the_order_of_findings():
    roles = ("clipped", "gradient", "loss", "tensor", "input")
    names = ("l1/V", "l1/V", "loss", "values", "x")
    findings = [Finding(role, name, ONE_NAN) for role, name in zip(roles, names, strict=True)]
    phases = [origin_of_alert(HEADER, alert_of(*findings[:count])).phase for count in range(1, 6)]
    assert phases == ["clip", "backward", "loss", "forward", "input"]


def test_a_weight_that_is_bad_in_the_first_watched_step_is_no_fault_of_an_update():
    origin = origin_of_alert(HEADER, alert_of(Finding("weight", "l2/V", ONE_NAN), step=0))
    assert (origin.step, origin.phase, origin.variable) == (0, "weights", "l2/V")


def test_the_update_that_made_a_weight_bad_comes_before_its_effects():
    findings = [Finding("loss", "loss", ONE_NAN), Finding("weight", "l2/V", ONE_NAN)]
    origin = origin_of_alert(HEADER, alert_of(*findings))
    assert (origin.step, origin.phase, origin.variable) == (6, "update", "l2/V")


def test_the_step_before_is_the_previous_watched_step():
    window = series_at([10, 20, 30])
    finding = Finding("weight", "l2/V", ONE_NAN)
    assert origin_of_alert(HEADER, alert_of(finding, step=30, first_step=10, window=window)).step == 20


def test_the_first_bad_gradient_of_the_backward_pass_is_the_origin():
    findings = [Finding("gradient", name, ONE_NAN) for name in ("l1/V", "l1/b", "l2/V")]
    findings[2] = dataclasses.replace(findings[2], counts=ONE_INF)
    origin = origin_of_alert(HEADER, alert_of(*findings))
    assert (origin.layer, origin.variable, origin.kind) == ("l2", "l2/V", "pos_inf")


def test_an_unknown_backward_order_leaves_the_variable_open():
    unordered = tuple(dataclasses.replace(variable, backward_order=None) for variable in VARIABLES)
    header = Header(0, (*VARIABLES[:2], *unordered[2:]))
    findings = [Finding("gradient", name, ONE_NAN) for name in ("l1/V", "l2/V")]
    origin = origin_of_alert(header, alert_of(*findings))
    assert (origin.layer, origin.variable, origin.counts, origin.kind) == (None, None, None, "nan")


@pytest.mark.parametrize("role", ["weight", "clipped"])
def test_several_variables_of_a_layer_give_the_layer(role):
    same_layer = [Finding(role, "l1/V", ONE_NAN), Finding(role, "l1/b", ONE_INF)]
    origin = origin_of_alert(HEADER, alert_of(*same_layer))
    assert (origin.layer, origin.variable, origin.counts, origin.kind) == ("l1", None, None, None)
    origin = origin_of_alert(HEADER, alert_of(*same_layer, Finding(role, "l2/b", ONE_NAN)))
    assert (origin.layer, origin.variable) == (None, None)


def test_a_variable_outside_the_header_has_no_layer():
    origin = origin_of_alert(HEADER, alert_of(Finding("gradient", "l9/V", ONE_NAN)))
    assert (origin.layer, origin.variable) == (None, "l9/V")


def test_the_first_bad_input_is_named_with_its_samples():
    findings = [Finding("input", "x", ONE_NAN, (2, 5)), Finding("input", "y", ONE_INF, (1,))]
    origin = origin_of_alert(HEADER, alert_of(*findings))
    assert (origin.tensor, origin.samples, origin.kind) == ("x", (2, 5), "nan")


def test_the_window_gives_the_kind_of_a_finding_without_counts():
    window = steps_of(6, 7, loss=[1.0, math.nan])
    origin = origin_of_alert(HEADER, alert_of(Finding("loss", "loss", None), window=window))
    assert (origin.kind, origin.counts) == ("nan", None)
    assert origin_of_alert(HEADER, alert_of(Finding("loss", "loss", None))).kind is None


@pytest.mark.parametrize(
    ("norms", "place"),
    [
        ({"tensor_norm": only_at(7, math.nan, first=0, last=9)}, (7, "forward", None, None, "values", "nan")),
        ({"loss": only_at(7, math.nan, first=0, last=9)}, (7, "loss", None, None, None, "nan")),
        (
            {"grad_norm": only_at(7, math.nan, first=0, last=9, width=4, column=1)},
            (7, "backward", "l1", "l1/b", None, "nan"),
        ),
        (
            {"weight_norm": only_at(7, math.nan, first=0, last=9, width=4, column=2)},
            (6, "update", "l2", "l2/V", None, "nan"),
        ),
        (
            {"weight_norm": only_at(0, math.nan, first=0, last=9, width=4, column=2)},
            (0, "weights", "l2", "l2/V", None, "nan"),
        ),
        ({"loss": only_at(7, math.inf, first=0, last=9)}, (7, "loss", None, None, None, None)),
    ],
)
def test_columns_give_the_origin_if_the_alert_is_lost(norms, place):
    origin = first_of(steps_of(0, 9, **norms))
    found = (origin.step, origin.phase, origin.layer, origin.variable, origin.tensor, origin.kind)
    assert found == place
    assert origin.counts is None


def test_a_merged_span_keeps_the_exact_step():
    merged = merge_spans(steps_of(0, 9, loss=only_at(7, math.nan, first=0, last=9)), [0, 4])
    assert first_of(merged).step == 7
    weights = only_at(7, math.nan, first=0, last=9, width=4)
    assert first_of(merge_spans(steps_of(0, 9, weight_norm=weights), [0, 4])).step == 6
    assert first_of(merge_spans(steps_of(0, 9, weight_norm=weights), [0, 7])).step == 6


def test_a_bad_clipped_gradient_with_a_finite_gradient_is_a_fault_of_clipping():
    header = dataclasses.replace(HEADER, clip="scale")
    norms = only_at(3, math.nan, first=0, last=4, width=4, column=3)
    origin = first_of(steps_of(0, 4, header=header, clipped_norm=norms), header=header)
    assert (origin.step, origin.phase, origin.variable) == (3, "clip", "l2/b")


def test_an_alert_comes_before_columns_of_the_same_place():
    series = steps_of(0, 7, loss=only_at(7, math.nan, first=0, last=7))
    assert first_of(series, alert_of(Finding("loss", "loss", ONE_INF))).counts == ONE_INF


def test_columns_of_an_earlier_step_come_before_the_alert():
    series = steps_of(0, 7, loss=only_at(5, math.nan, first=0, last=7))
    assert first_of(series, alert_of(Finding("loss", "loss", ONE_INF))).step == 5


def test_the_earlier_session_comes_first_whatever_its_steps():
    late = SessionLog(HEADER, NO_STEPS, (alert_of(Finding("loss", "loss", ONE_NAN), step=90),))
    early = SessionLog(HEADER, NO_STEPS, (alert_of(Finding("loss", "loss", ONE_NAN), step=40, session=1),))
    assert first_of_run(RunLog("run", (late, early))).origin.step == 90


def test_a_finite_run_has_no_first_bad_step():
    assert first_of(steps_of(0, 9)) is None
    assert first_of_run(RunLog("run")) is None


def test_variables_without_an_owner_share_no_layer():
    header = Header(0, (Variable("a", None, (1,), "float32"), Variable("b", None, (1,), "float32")))
    findings = [Finding("weight", name, ONE_NAN) for name in ("a", "b")]
    assert origin_of_alert(header, alert_of(*findings)).layer is None


def replay_of(link, *finding, **facts):
    replay = Replay("found", chains=((link,),))
    return dataclasses.replace(alert_of(Finding(*finding), **facts), replay=replay)


def test_a_replay_that_found_the_operation_gives_the_origin():
    origin = origin_of_alert(HEADER, replay_of(SQUARE, "loss", "loss", ONE_NAN))
    assert (origin.step, origin.phase, origin.op.type, origin.source.line) == (7, "loss", "Square", 41)
    assert (origin.kind, origin.counts, origin.samples) == ("pos_inf", THREE_INF, (7, 31, 50))
    assert (origin.evidence, origin.batch) == ("replay", None)


@pytest.mark.parametrize("outcome", ["finite", "failed"])
def test_a_replay_without_an_origin_leaves_the_origin_to_the_records(outcome):
    alert = dataclasses.replace(alert_of(Finding("loss", "loss", ONE_INF)), replay=Replay(outcome, ("Why.",)))
    origin = origin_of_alert(HEADER, alert)
    assert (origin.evidence, origin.op, origin.counts) == ("records", None, ONE_INF)


def test_a_bad_variable_in_a_replay_is_a_fault_of_the_update_before():
    weight = link("nan", op=None, phase="weights", variable="l2/V", counts=ONE_NAN)
    window = series_at([10, 20, 30])
    later = replay_of(weight, "weight", "l2/V", ONE_NAN, step=30, first_step=10, window=window)
    origin = origin_of_alert(HEADER, later)
    assert (origin.step, origin.phase, origin.variable, origin.layer) == (20, "update", "l2/V", "l2")
    first = origin_of_alert(HEADER, replay_of(weight, "weight", "l2/V", ONE_NAN, step=0))
    assert (first.step, first.phase, first.op, first.source) == (0, "weights", None, None)


def test_an_intended_infinity_in_a_variable_dates_from_the_first_watched_step():
    weight = link("neg_inf", op=None, phase="weights", variable="l2/V", counts=Counts(4, 0, 0, 1))
    intended = replay_of(weight, "loss", "loss", ONE_INF, step=30, first_step=10, window=series_at([10, 20, 30]))
    origin = origin_of_alert(HEADER, intended)
    assert (origin.step, origin.phase, origin.variable) == (10, "weights", "l2/V")


def test_an_update_that_made_a_variable_bad_belongs_to_the_step_before():
    divided, window = link("nan", op="RealDiv", phase="update", variable="l2/V"), series_at([10, 20, 30])
    seen_next = replay_of(divided, "weight", "l2/V", ONE_NAN, step=31, first_step=10, window=window)
    assert (origin_of_alert(HEADER, seen_next).step, origin_of_alert(HEADER, seen_next).phase) == (30, "update")
    seen_at_once = replay_of(divided, "clipped", "l2/V", ONE_NAN, step=30, first_step=10, window=window)
    assert origin_of_alert(HEADER, seen_at_once).step == 30


def test_the_layer_of_the_operation_comes_before_the_layer_of_the_variable():
    matmul = link("nan", op="MatMul", phase="backward", layer="outer/l2", variable="l2/V")
    assert origin_of_alert(HEADER, replay_of(matmul, "gradient", "l2/V", ONE_NAN)).layer == "outer/l2"
    nameless = link("nan", op="MatMul", phase="backward", variable="l9/V")
    assert origin_of_alert(HEADER, replay_of(nameless, "gradient", "l2/V", ONE_NAN)).layer is None


def test_a_replay_decides_if_the_columns_show_the_same_step():
    series = steps_of(0, 7, loss=only_at(7, math.nan, first=0, last=7))
    backward = link("nan", op="MatMul", phase="backward")
    assert first_of(series, replay_of(backward, "loss", "loss", ONE_NAN)).phase == "backward"


def test_a_replay_does_not_explain_an_earlier_step():
    series = steps_of(0, 7, loss=only_at(5, math.nan, first=0, last=7))
    origin = first_of(series, replay_of(SQUARE, "loss", "loss", ONE_INF))
    assert (origin.step, origin.evidence) == (5, "records")


@pytest.mark.parametrize(("run", "path"), [("critic/relu", "critic/relu/b/step-7.npz"), (".", "b/step-7.npz")])
@pytest.mark.parametrize("replay", [None, REPLAY])
def test_the_path_of_the_batch_is_relative_to_the_logdir(run, path, replay):
    alert = dataclasses.replace(alert_of(Finding("loss", "loss", ONE_NAN)), replay=replay, batch="b/step-7.npz")
    found = first_of_run(RunLog(run, (SessionLog(HEADER, NO_STEPS, (alert,)),)))
    assert found.origin.batch == path
    assert found.recorded.batch is None
