"""The report on a bad step: its verdict, and the message of the exception."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Alert, Counts, Finding, Replay, Verdict
from tb_nanwatch.watch.record.history import NO_STEPS
from tb_nanwatch.watch.record.incident import (
    finding_of,
    gradient_sizes_before,
    message_of,
    samples_of,
    verdict_by_hand,
    verdict_of_alert,
)
from tests.event_files import HEADER, steps_of
from tests.replays import SQUARE, THREE_INF

NAN = float("nan")
ONE_NAN = Counts(size=4, nan=1, pos_inf=0, neg_inf=0)
VERDICT = Verdict("run", "nonfinite", "Step 7: NaN.", steps_seen=8)


def alert_at(step, *findings, window=NO_STEPS):
    return Alert(step, 0, 0, "raised", findings or (Finding("loss", "loss", ONE_NAN),), window)


class TestVerdictOfAlert:
    def test_names_the_step_of_the_alert(self):
        verdict = verdict_of_alert(
            HEADER, alert_at(3, window=steps_of(0, 3, loss=[1, 1, 1, NAN])), steps_seen=9, run="a"
        )
        assert (verdict.run, verdict.status, verdict.first.step, verdict.steps_seen) == ("a", "nonfinite", 3, 9)

    def test_leaves_out_an_error_that_the_program_caught_before(self):
        window = steps_of(0, 4, loss=[1, NAN, 1, 1, NAN])
        verdict = verdict_of_alert(HEADER, alert_at(4, window=window), steps_seen=5, run="a")
        assert verdict.first.step == 4

    def test_of_a_step_that_an_error_ended_is_no_bad_step(self):
        alert = dataclasses.replace(alert_at(3, window=steps_of(0, 2)), findings=(), error="InvalidArgumentError: no")
        assert verdict_of_alert(HEADER, alert, steps_seen=3, run="a").first is None


class TestVerdictByHand:
    def test_a_replay_that_failed_is_an_error(self):
        with pytest.raises(SetupError, match=r"^It took too long\. Nothing is known\.$"):
            verdict_by_hand(Replay("failed", ("It took too long.", "Nothing is known.")), (), step=0, run="a")

    def test_a_finite_replay_has_its_notes(self):
        verdict = verdict_by_hand(Replay("finite", ("A note.",)), (), step=0, run="a")
        assert (verdict.status, verdict.steps_seen, verdict.notes) == ("finite", 1, ("A note.",))

    def test_the_first_link_of_the_replay_is_the_origin(self):
        verdict = verdict_by_hand(Replay("found", (), ((SQUARE,),)), HEADER.variables, step=5, run="a")
        assert (verdict.first.step, verdict.first.op.type, verdict.first.samples) == (5, "Square", (7, 31, 50))


@pytest.mark.parametrize(("phase", "role"), [("loss", "loss"), ("backward", "gradient"), ("forward", "tensor")])
def test_an_origin_is_a_finding_of_its_phase(phase, role):
    origin = dataclasses.replace(SQUARE, phase=phase, variable="l2/V")
    assert finding_of(origin) == Finding(role, "l2/V", THREE_INF, (7, 31, 50))
    assert finding_of(dataclasses.replace(SQUARE, phase=phase)).name == "loss"


def test_the_size_of_a_gradient_is_its_root_mean_square_in_the_step_before():
    norms = np.array([[6.0, 4.0, NAN, 3.0], [NAN] * 4])
    alert = alert_at(1, window=steps_of(0, 1, grad_norm=norms))
    assert gradient_sizes_before(alert, HEADER.variables) == pytest.approx((6 / 12**0.5, 2.0, 1.0, 3.0))
    assert gradient_sizes_before(alert_at(1), HEADER.variables) == (1.0,) * 4


def test_the_bad_samples_are_those_of_the_first_bad_argument():
    alert = alert_at(1, Finding("loss", "loss", ONE_NAN), Finding("input", "x", ONE_NAN, (2, 5)))
    assert samples_of(alert) == (2, 5)
    assert samples_of(alert_at(1)) == ()


class TestMessage:
    def test_a_withheld_update_is_named(self):
        message = message_of(VERDICT, alert_at(7, window=steps_of(0, 7)), "runs/a b")
        assert message == "Step 7: NaN. The update of step 7 was withheld. For more: nanwatch 'runs/a b'"

    def test_an_alert_of_an_earlier_step_withheld_another_update(self):
        message = message_of(VERDICT, alert_at(5, window=steps_of(0, 7)), "runs")
        assert message == "Step 7: NaN. For more: nanwatch runs"

    def test_skips_in_a_row_are_counted(self):
        message = message_of(VERDICT, alert_at(7), "runs", skips=1000)
        assert message == "Step 7: NaN. From there 1,000 bad steps in a row were skipped. For more: nanwatch runs"

    def test_lost_weights_are_named_with_the_checkpoint_to_restore(self):
        message = message_of(VERDICT, alert_at(7, Finding("weight", "l1/V", ONE_NAN)), "runs/a b", skips=3)
        assert message.startswith("Step 7: NaN. The update of step 6 had run before that could be seen")
        assert message.endswith("restore a checkpoint from before step 6. For more: nanwatch 'runs/a b'")
