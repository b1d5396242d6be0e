"""Each kind of evidence gives the right causes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog, causes, diagnose
from tb_nanwatch.schema.records import Alert, Counts, Entry, Finding, Replay
from tests.event_files import HEADER, steps_of
from tests.replays import SQUARE, alert_of, link, operand

ONE_NAN = Counts(size=4, nan=1, pos_inf=0, neg_inf=0)


def causes_of(role, name="l2/V", *, header=HEADER, first_step=0, steps=30, **norms):
    series = steps_of(0, steps - 1, header=header, **norms)
    alert = Alert(steps - 1, 0, first_step, "raised", (Finding(role, name, ONE_NAN),), series)
    verdict = diagnose(RunLog("run", (SessionLog(header, series, (alert,)),)))
    return [(cause.id, cause.confidence) for cause in verdict.causes]


RISING = [1.0] * 20 + [1e4] * 9 + [math.nan]


@pytest.mark.parametrize(
    ("role", "name", "causes"),
    [
        ("input", "x", [("bad-input", "high")]),
        ("weight", "l2/V", [("bad-update", "medium")]),
        ("loss", "loss", [("forward-range", "low")]),
        ("gradient", "l2/V", [("backward-only", "low")]),
        ("clipped", "l2/V", [("clip-overflow", "low")]),
        ("state", "norm/moving_variance", []),
    ],
)
def test_each_phase_has_its_own_cause(role, name, causes):
    assert causes_of(role, name) == causes


def test_a_variable_that_is_bad_from_the_start_blames_its_initial_value():
    assert causes_of("weight", first_step=29) == [("bad-start", "high")]


@pytest.mark.parametrize("role", ["loss", "gradient", "tensor"])
def test_an_explosion_explains_a_later_bad_step(role):
    name = {"loss": "loss", "tensor": "values"}.get(role, "l2/V")
    assert causes_of(role, name, global_norm=RISING) == [("exploding-gradients", "high")]


def test_one_step_of_explosion_is_weaker_evidence():
    norms = [1.0] * 28 + [1e4, math.nan]
    assert causes_of("loss", "loss", global_norm=norms) == [("exploding-gradients", "medium")]


def test_an_explosion_does_not_explain_a_bad_batch():
    assert causes_of("input", "x", global_norm=RISING) == [("bad-input", "high")]


def test_an_explosion_lowers_the_confidence_in_a_bad_update():
    assert causes_of("weight", global_norm=RISING) == [("exploding-gradients", "high"), ("bad-update", "low")]


def test_an_unrecorded_loss_does_not_count_as_finite():
    assert causes_of("gradient", loss=np.full(30, math.nan)) == [("forward-range", "low")]


def test_a_norm_out_of_range_explains_a_bad_clip():
    header = dataclasses.replace(HEADER, clip="scale")
    norms = [1.0] * 29 + [3e19]
    assert causes_of("clipped", header=header, global_norm=norms) == [("clip-overflow", "high")]


@pytest.mark.parametrize("role", ["loss", "gradient", "tensor", "clipped"])
def test_a_norm_that_is_large_only_in_the_bad_step_is_no_explosion(role):
    name = {"loss": "loss", "tensor": "values"}.get(role, "l2/V")
    header = dataclasses.replace(HEADER, clip="scale")
    norms = [1.0] * 29 + [3e9]
    assert "exploding-gradients" not in dict(causes_of(role, name, header=header, global_norm=norms))


def test_a_variable_frozen_only_in_the_bad_step_gives_no_warning():
    header = dataclasses.replace(HEADER, clip="scale")
    norms, ratios = np.ones((30, 4)), np.ones((30, 4))
    norms[29, 0], ratios[29, 0] = 1e30, 0.0
    series = steps_of(0, 29, header=header, grad_norm=norms, clip_ratio=ratios)
    alert = Alert(29, 0, 0, "raised", (Finding("clipped", "l2/V", ONE_NAN),), series)
    assert diagnose(RunLog("run", (SessionLog(header, series, (alert,)),))).warnings == ()


def test_the_text_of_a_cause_quotes_its_numbers():
    series = steps_of(0, 29, global_norm=RISING)
    alert = Alert(29, 0, 0, "raised", (Finding("loss", "loss", ONE_NAN),), series)
    (cause,) = diagnose(RunLog("run", (SessionLog(HEADER, series, (alert,)),))).causes
    assert cause.text == (
        "The gradients exploded first: their global norm, 1 in the median until step 20, rose to 1e+04 by step 28."
    )


def causes_at(origin, **norms):
    series = steps_of(0, 29, **norms)
    alert = alert_of(Replay("found", chains=((origin,),)), window=series)
    return diagnose(RunLog("run", (SessionLog(HEADER, series, (alert,)),))).causes


def causes_of_link(origin, **norms):
    return [cause.id for cause in causes_at(origin, **norms)]


def test_the_cause_of_the_operation_comes_before_an_explosion():
    assert causes_of_link(SQUARE) == ["square-overflow"]
    assert causes_of_link(SQUARE, global_norm=RISING) == ["square-overflow", "exploding-gradients"]


@pytest.mark.parametrize("phase", ["forward", "loss", "backward", "clip", "update", "state"])
def test_an_operation_without_a_rule_has_no_cause(phase):
    assert causes_of_link(link("nan", operand(0.0, 1.0), op="MyOwn", phase=phase)) == []


@pytest.mark.parametrize(
    ("phase", "names", "cause"),
    [
        ("input", {"tensor": "x"}, "bad-input"),
        ("weights", {"variable": "l2/V"}, "bad-update"),
        ("state", {"variable": "adam/learning_rate"}, "bad-state"),
    ],
)
def test_a_value_from_outside_the_step_has_its_own_cause(phase, names, cause):
    assert causes_of_link(link("nan", op=None, phase=phase, **names)) == [cause]


def test_bad_state_is_reported_without_a_guess():
    (cause,) = causes_at(link("nan", op=None, phase="state", variable="layer/scale"))
    assert cause.text == "layer/scale was not finite as the step began: no operation of this step made it so."


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("argument", "The step was given the value: no operation of the step made it."),
        ("captured", "The tensor held the value before the step ran, and it is no argument of the step."),
        (
            "constant",
            "The program's data held the value, and the step made a constant of it: it is no argument of the step.",
        ),
    ],
)
def test_the_cause_of_a_bad_input_names_the_way_of_its_entry(way, text):
    (cause,) = causes_at(link("nan", op=None, phase="input", tensor="x", entry=Entry(way, (3,), ((1,),))))
    assert cause.text == text
    assert "batch" not in f"{cause.text} {cause.fix}"


@pytest.mark.parametrize("explains_operations", [True, False])
def test_an_entry_in_the_table_is_all_that_a_new_cause_needs(monkeypatch, explains_operations):
    rule = causes.Rule(
        "novelty", frozenset({"loss"}), "It is new.", "Wait.", "low", explains_operations=explains_operations
    )
    monkeypatch.setattr(causes, "RULES", (*causes.RULES, rule))
    assert ("novelty", "low") in causes_of("loss", "loss")
    assert "novelty" not in dict(causes_of("gradient"))
    assert ("novelty" in causes_of_link(SQUARE)) == explains_operations
