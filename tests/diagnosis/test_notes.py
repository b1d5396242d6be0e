"""What a verdict says of the replay besides the origin."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.schema.records import Alert, Counts, Finding, Replay
from tests.event_files import HEADER, only_at, steps_of
from tests.replays import SQUARE, link

ONE_NAN = Counts(size=4, nan=1, pos_inf=0, neg_inf=0)
SERIES = steps_of(0, 7)


def notes_on(replay, *, role="gradient", name="l2/V", series=SERIES):
    alert = Alert(7, 0, 0, "raised", (Finding(role, name, ONE_NAN),), series, replay)
    return diagnose(RunLog("run", (SessionLog(HEADER, series, (alert,)),))).notes


def found(*links, notes=()):
    return Replay("found", notes, (links,))


def test_a_step_that_was_not_run_again_needs_no_note():
    assert notes_on(None) == ()


def test_a_step_that_came_out_finite_is_told_with_what_else_is_known():
    assert notes_on(Replay("finite", ("It draws random numbers.",))) == (
        "The step came out finite when it was run again, so what was recorded is all that is known of it.",
        "It draws random numbers.",
    )


def test_why_a_replay_failed_is_told_by_whoever_ran_it():
    assert notes_on(Replay("failed", ("It took longer than 60 s.",))) == ("It took longer than 60 s.",)
    assert notes_on(Replay("failed")) == (
        "The step could not be run again, so what was recorded is all that is known of it.",
    )


@pytest.mark.parametrize(
    ("phase", "where"),
    [
        ("forward", "in the forward pass"),
        ("loss", "on the way to the loss"),
        ("input", "in what the step was given"),
    ],
)
def test_what_the_step_hid_from_its_loss_is_said(phase, where):
    first, *rest = notes_on(found(dataclasses.replace(SQUARE, phase=phase), notes=("More.",)))
    assert first.startswith(f"The replay saw it {where} already, while the step's own loss was finite: ")
    assert rest == ["More."]


@pytest.mark.parametrize(("kind", "keeps"), [("pos_inf", "a division by Inf, which gives 0"), ("nan", "a relu or max")])
def test_what_may_have_kept_a_loss_finite_fits_the_kind(kind, keeps):
    (note,) = notes_on(found(dataclasses.replace(SQUARE, phase="forward", kind=kind)))
    assert f"kept it from the loss, such as {keeps}" in note


def test_an_operation_of_the_backward_pass_was_not_hidden():
    assert notes_on(found(link("nan", op="Mul", phase="backward"))) == ()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_was_bad_or_not_recorded_hid_nothing(loss):
    series = steps_of(0, 7, loss=only_at(7, loss, first=0, last=7))
    assert notes_on(found(SQUARE), role="loss", name="loss", series=series) == ()
    unrecorded = dataclasses.replace(SERIES, columns={k: c for k, c in SERIES.columns.items() if k.stat != "loss"})
    assert notes_on(found(SQUARE), series=unrecorded) == ()


def test_a_batch_that_the_records_saw_too_was_not_hidden():
    assert notes_on(found(link("nan", op=None, phase="input", tensor="x")), role="input", name="x") == ()
