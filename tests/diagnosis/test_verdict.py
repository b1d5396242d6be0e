"""The verdict as a whole."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.diagnosis.run_log import layer_columns, steps_held
from tb_nanwatch.diagnosis.verdict import deciding_session
from tb_nanwatch.numerics.spans import merge_spans
from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Series, Variable
from tests.event_files import HEADER, only_at, series_at, steps_of
from tests.replays import CHAIN, REPLAY, alert_of

NO_STEPS = Series(np.zeros(0, np.int64), np.zeros(0, np.int64), {})
ONE_NAN = Counts(size=1, nan=1, pos_inf=0, neg_inf=0)


def session_of(series, *alerts, number=0):
    return SessionLog(dataclasses.replace(HEADER, session=number), series, alerts)


def loss_alert(step, *, session=0):
    return Alert(step, session, 0, "raised", (Finding("loss", "loss", ONE_NAN),), NO_STEPS)


def test_a_finite_run_states_its_number_of_steps():
    verdict = diagnose(RunLog("run", (session_of(steps_of(0, 1999)),)))
    assert (verdict.status, verdict.steps_seen) == ("finite", 2000)
    assert verdict.text == "Finite in all 2,000 steps."
    assert (verdict.first, verdict.warnings, verdict.causes, verdict.skipped_steps) == (None, (), (), 0)


def test_a_finite_run_with_a_warning_has_the_status_warning():
    norms = [1.0] * 20 + [1e5] * 10
    verdict = diagnose(RunLog("run", (session_of(steps_of(0, 29, global_norm=norms)),)))
    assert verdict.status == "warning"
    assert verdict.text.startswith("Finite in all 30 steps. The gradients explode from step 20 on:")
    assert [(warning.kind, warning.first_step) for warning in verdict.warnings] == [("exploding", 20)]


def test_a_nonfinite_step_outweighs_a_warning():
    norms, losses = [1.0] * 20 + [1e5] * 10, [1.0] * 29 + [math.nan]
    verdict = diagnose(RunLog("run", (session_of(steps_of(0, 29, global_norm=norms, loss=losses)),)))
    assert verdict.status == "nonfinite"
    assert verdict.text == "Step 29: NaN first appeared in the loss."
    assert [warning.kind for warning in verdict.warnings] == ["exploding"]


@pytest.mark.parametrize("sessions", [(), (session_of(NO_STEPS),)])
def test_a_run_without_steps_is_empty(sessions):
    verdict = diagnose(RunLog("run", sessions))
    assert (verdict.status, verdict.text) == ("empty", "No step has been recorded yet.")


def test_the_verdict_on_a_damaged_log_is_about_the_steps_that_were_read():
    verdict = diagnose(RunLog("run", (session_of(steps_of(0, 9)),), ("a broken file.",)))
    assert (verdict.status, verdict.unreadable) == ("incomplete", ("a broken file.",))
    assert verdict.text == "Part of the log could not be read; the 10 steps that were read are finite."


def test_a_remark_on_the_log_leaves_a_run_finite():
    verdict = diagnose(RunLog("run", (session_of(steps_of(0, 9)),), remarks=("a newer version wrote it.",)))
    assert (verdict.status, verdict.text) == ("finite", "Finite in all 10 steps.")
    assert (verdict.problems, verdict.unreadable) == (("a newer version wrote it.",), ())


def test_a_damaged_log_is_noted_because_an_earlier_bad_step_may_be_missing():
    bad = session_of(steps_of(0, 9, loss=only_at(7, math.nan, first=0, last=9)))
    note = "Part of the log could not be read: an earlier bad step may be missing."
    assert note in diagnose(RunLog("run", (bad,), ("a broken file.",))).notes
    assert note not in diagnose(RunLog("run", (bad,))).notes
    assert diagnose(RunLog("run", (), ("a broken file.",))).text == "No step of this run could be read."


def test_a_damaged_log_gives_no_cause_without_a_replay():
    bad = session_of(steps_of(0, 9, loss=only_at(7, math.nan, first=0, last=9)))
    whole, damaged = diagnose(RunLog("run", (bad,))), diagnose(RunLog("run", (bad,), ("a broken file.",)))
    assert [cause.id for cause in whole.causes] == ["forward-range"]
    assert damaged.causes == ()
    lost = "What was found in that step may be in the part that could not be read, so no cause is given."
    assert (lost in whole.notes, lost in damaged.notes) == (False, True)


def test_a_step_that_only_an_alert_reports_counts_as_seen():
    verdict = diagnose(RunLog("run", (session_of(steps_of(0, 4), loss_alert(4), loss_alert(7)),)))
    assert verdict.steps_seen == 6


def test_the_steps_of_all_sessions_are_counted():
    sessions = (session_of(steps_of(0, 4)), session_of(steps_of(3, 9), number=1))
    assert diagnose(RunLog("run", sessions)).steps_seen == 12


def test_warnings_are_about_the_last_session_of_a_finite_run():
    exploded = steps_of(0, 29, global_norm=[1.0] * 20 + [1e5] * 10)
    finite = steps_of(20, 60)
    assert diagnose(RunLog("run", (session_of(exploded), session_of(finite, number=1)))).status == "finite"
    assert diagnose(RunLog("run", (session_of(finite), session_of(exploded, number=1)))).status == "warning"


def test_the_deciding_session_is_the_session_of_the_verdict():
    finite, bad = session_of(steps_of(0, 4)), session_of(steps_of(3, 9), loss_alert(9, session=1), number=1)
    after = session_of(steps_of(5, 9), number=2)
    assert deciding_session(RunLog("run", (finite, bad, after))) is bad
    assert deciding_session(RunLog("run", (finite, after))) is after
    assert deciding_session(RunLog("run")) is None


class CountingColumns(dict):
    """Columns that count how often a column is read."""

    reads = 0

    def __getitem__(self, key):
        self.reads += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("bad_step", [None, 3])
def test_the_deciding_session_is_known_without_reading_columns_again(bad_step):
    steps = steps_of(0, 4, loss=[1.0 if step != bad_step else math.nan for step in range(5)])
    columns = CountingColumns(steps.columns)
    log = RunLog("run", (session_of(Series(steps.first_step, steps.last_step, columns)),))
    diagnose(log)
    columns.reads = 0
    assert deciding_session(log) is log.sessions[0]
    assert columns.reads == 0


def test_spans_of_every_tenth_step_count_the_watched_steps():
    tens = series_at(np.arange(0, 100, 10))
    assert steps_held(tens).tolist() == [1] * 10
    assert steps_held(merge_spans(tens, [0, 4])).tolist() == [4, 6]
    assert steps_held(merge_spans(steps_of(0, 9), [0, 4])).tolist() == [4, 6]


def test_a_span_without_counts_counts_its_width():
    assert steps_held(dataclasses.replace(steps_of(0, 4), columns={})).tolist() == [1] * 5


def test_variables_of_a_layer_need_not_be_adjacent():
    names = [("a/k", "a"), ("b/k", "b"), ("a/b", "a"), ("single", None)]
    header = Header(0, tuple(Variable(name, layer, (1,), "float32") for name, layer in names))
    assert layer_columns(header) == {"a": [0, 2], "b": [1], None: [3]}


def replayed_verdict():
    series = steps_of(0, 29, loss=[1.0] * 29 + [math.inf])
    return diagnose(RunLog("run", (session_of(series, alert_of(REPLAY, window=series)),)))


def test_a_verdict_with_a_replay_has_the_chain_from_the_origin():
    verdict = replayed_verdict()
    assert verdict.chain == CHAIN
    assert verdict.chain[0].stack != ()
    assert verdict.first.op == CHAIN[0].op
    assert verdict.notes == REPLAY.notes


def test_chains_of_further_origins_have_no_stack():
    (other,) = replayed_verdict().other_chains
    assert REPLAY.chains[1][0].stack != ()
    assert other[0] == dataclasses.replace(REPLAY.chains[1][0], stack=())


def test_a_verdict_without_a_replay_has_no_chain():
    verdict = diagnose(RunLog("run", (session_of(NO_STEPS, loss_alert(3)),)))
    assert (verdict.chain, verdict.other_chains, verdict.notes) == ((), (), ())
