"""The notes of a verdict on the replay of the bad step."""

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


def test_a_step_without_a_replay_has_no_note():
    assert notes_on(None) == ()


def test_a_finite_replay_is_noted_with_its_own_notes():
    assert notes_on(Replay("finite", ("It draws random numbers.",))) == (
        "The replay of the step was finite, so only the records describe this step.",
        "It draws random numbers.",
    )


def test_the_notes_of_a_failed_replay_are_shown():
    assert notes_on(Replay("failed", ("It took longer than 60 s.",))) == ("It took longer than 60 s.",)
    assert notes_on(Replay("failed")) == ("The step could not be replayed, so only the records describe it.",)


@pytest.mark.parametrize(
    ("phase", "where"),
    [
        ("forward", "in the forward pass"),
        ("loss", "on the way to the loss"),
        ("input", "in an input of the step"),
    ],
)
def test_a_value_that_was_hidden_from_the_loss_is_noted(phase, where):
    first, *rest = notes_on(found(dataclasses.replace(SQUARE, phase=phase), notes=("More.",)))
    assert first.startswith(f"The replay saw it {where} already, while the step's own loss was finite: ")
    assert rest == ["More."]


@pytest.mark.parametrize(
    ("kind", "reason"), [("pos_inf", "a division by Inf, which gives 0"), ("nan", "a relu or max")]
)
def test_the_reason_for_a_finite_loss_fits_the_kind(kind, reason):
    (note,) = notes_on(found(dataclasses.replace(SQUARE, phase="forward", kind=kind)))
    assert f"kept it from the loss, such as {reason}" in note


def test_an_origin_in_the_backward_pass_is_not_hidden_from_the_loss():
    assert notes_on(found(link("nan", op="Mul", phase="backward"))) == ()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_bad_or_unrecorded_loss_hides_nothing(loss):
    series = steps_of(0, 7, loss=only_at(7, loss, first=0, last=7))
    assert notes_on(found(SQUARE), role="loss", name="loss", series=series) == ()
    unrecorded = dataclasses.replace(SERIES, columns={k: c for k, c in SERIES.columns.items() if k.stat != "loss"})
    assert notes_on(found(SQUARE), series=unrecorded) == ()


def test_a_bad_batch_in_the_records_is_not_hidden():
    assert notes_on(found(link("nan", op=None, phase="input", tensor="x")), role="input", name="x") == ()
