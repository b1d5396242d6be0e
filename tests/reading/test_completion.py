"""The messages about a bad step become one alert."""

from __future__ import annotations

import dataclasses

import pytest

from tb_nanwatch.reading.completion import is_below, join_messages
from tb_nanwatch.schema.records import Alert, Counts, Finding, Replay
from tests.event_files import steps_of
from tests.replays import REPLAY, replayed

FIRST = Alert(9, 0, 0, "raised", (Finding("loss", "loss", Counts(1, 1, 0, 0)),), steps_of(0, 9))
BATCH = "nanwatch/batches/step-9.npz"


def test_a_second_message_completes_the_first_in_any_order():
    second = replayed(FIRST, batch=BATCH)
    for written in ([FIRST, second], [second, FIRST]):
        (alert,) = join_messages(written)
        assert (alert.window, alert.replay, alert.batch) == (FIRST.window, REPLAY, BATCH)


def test_a_message_is_kept_alone_if_the_other_is_missing():
    second = replayed(FIRST, batch=BATCH)
    assert join_messages([FIRST]) == (FIRST,)
    assert join_messages([second]) == (second,)
    assert join_messages([]) == ()


def test_the_batch_and_the_replay_may_come_in_separate_messages():
    batch, replay = replayed(FIRST, None, batch=BATCH), replayed(FIRST)
    for written in ([FIRST, batch, replay], [batch, replay]):
        (alert,) = join_messages(written)
        assert (alert.replay, alert.batch) == (REPLAY, BATCH)


def test_a_later_replay_replaces_an_earlier_replay():
    failed = Replay("failed", ("It took longer than 60 s.",))
    assert join_messages([FIRST, replayed(FIRST, failed), replayed(FIRST)])[0].replay == REPLAY


@pytest.mark.parametrize("other", [{"step": 8}, {"findings": (Finding("loss", "loss", None),)}])
def test_a_message_of_another_step_or_finding_completes_nothing(other):
    second = dataclasses.replace(replayed(FIRST), **other)
    assert join_messages([FIRST, second]) == (FIRST, second)


def test_two_alerts_of_a_step_with_windows_stay_separate():
    again = dataclasses.replace(FIRST, findings=(Finding("gradient", "l1/V", None),))
    first, second = join_messages([FIRST, again, replayed(again)])
    assert (first, second.replay, second.window) == (FIRST, REPLAY, again.window)


def test_an_alert_with_window_and_replay_completes_no_other():
    whole = dataclasses.replace(FIRST, replay=REPLAY, window=steps_of(5, 9))
    assert join_messages([FIRST, whole]) == (FIRST, whole)


def test_an_alert_without_window_replay_and_batch_is_no_second_message():
    bare = replayed(FIRST, None)
    assert join_messages([FIRST, bare]) == (FIRST, bare)


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("nanwatch/batches/step-9.npz", True),
        ("step..9.npz", True),
        ("", False),
        ("/etc/passwd", False),
        ("../other/step-9.npz", False),
        ("a/../../b", False),
        (r"a\..\..\b", False),
        (r"\\host\share", False),
        ("C:/x", False),
        ("gs://x/y", False),
    ],
)
def test_a_path_is_checked_to_lie_below_the_run(path, holds):
    assert is_below(path) is holds
