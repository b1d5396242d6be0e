"""Chunks of a session become a series in any order, and damaged records are reported."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.printing import lines_of
from tb_nanwatch.reading.assembly import assemble
from tb_nanwatch.reading.messages import Datum, TagContent, Written, decode_tag
from tb_nanwatch.reading.tags import parse_tag
from tb_nanwatch.schema import nanwatch_pb2, wire
from tb_nanwatch.schema.codec import dumps
from tb_nanwatch.schema.records import Alert, ColumnKey, Counts, Finding, Series
from tests.event_files import HEADER, only_at, series_at, steps_of
from tests.replays import REPLAY, replayed
from tests.strategies import replays

ALERT = Alert(
    step=9,
    session=0,
    first_step=0,
    action="raised",
    findings=(Finding("loss", "loss", Counts(size=1, nan=1, pos_inf=0, neg_inf=0)),),
    window=steps_of(0, 9, loss=only_at(9, math.nan, first=0, last=9)),
)


def log_of(messages):
    """Assemble a run from the messages of each tag, written one after the other."""
    clock = iter(range(10_000))
    contents = {}
    for name, data in messages.items():
        tag = parse_tag(name)
        contents[tag] = decode_tag(tag, [Datum(float(next(clock)), np.array(message, object)) for message in data])
    return assemble("run", contents)


def with_header(header=HEADER, **tags):
    return {"nanwatch/0/header": [wire.encode_header(header)]} | {
        f"nanwatch/0/{name.replace('_', '/')}": data for name, data in tags.items()
    }


def spans(*chunks):
    return [wire.encode_series(chunk) for chunk in chunks]


def steps_in(log):
    return log.sessions[0].series.first_step.tolist()


def test_generations_are_joined_in_order_of_steps():
    log = log_of(with_header(spans_1=spans(steps_of(6, 9)), spans_0=spans(steps_of(0, 2), steps_of(3, 5))))
    assert steps_in(log) == list(range(10))
    assert log.problems == ()


def test_a_later_written_chunk_replaces_the_steps_of_an_earlier_chunk():
    early = steps_of(0, 5, loss=1.0)
    late = steps_of(3, 8, loss=2.0)
    log = log_of(with_header(spans_0=spans(early, late)))
    assert steps_in(log) == list(range(9))
    assert log.sessions[0].series.column("loss", "max")[:, 0].tolist() == [1.0] * 3 + [2.0] * 6


def test_the_time_of_writing_decides_which_chunk_is_later():
    log = log_of(with_header(spans_2=spans(steps_of(0, 5, loss=1.0)), spans_10=spans(steps_of(3, 8, loss=2.0))))
    assert log.sessions[0].series.column("loss", "max")[:, 0].tolist() == [1.0] * 3 + [2.0] * 6


def test_a_later_chunk_may_replace_the_middle_of_an_earlier_chunk():
    log = log_of(with_header(spans_0=spans(steps_of(0, 8, loss=1.0), steps_of(3, 5, loss=2.0))))
    assert steps_in(log) == list(range(9))
    assert log.sessions[0].series.column("loss", "max")[:, 0].tolist() == [1.0] * 3 + [2.0] * 3 + [1.0] * 3


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=12))
def test_overlapping_chunks_give_an_ordered_series_with_the_whole_last_chunk(intervals):
    chunks = [steps_of(first, first + length) for first, length in intervals]
    series = log_of(with_header(spans_0=spans(*chunks))).sessions[0].series
    assert (np.diff(series.first_step) > 0).all()
    if chunks:
        assert set(chunks[-1].first_step.tolist()) <= set(series.first_step.tolist())


def test_a_message_that_does_not_decode_is_reported_and_the_rest_is_kept():
    log = log_of(with_header(spans_0=[*spans(steps_of(0, 2)), b"\xff\xff", *spans(steps_of(3, 4))]))
    assert steps_in(log) == [0, 1, 2, 3, 4]
    (problem,) = log.problems
    assert problem.startswith("nanwatch/0/spans/0: 2 bytes do not decode as SpanChunk: ")
    assert problem.endswith(".")
    assert not problem.endswith("..")


def test_columns_of_unequal_length_are_reported():
    uneven = nanwatch_pb2.SpanChunk(first_step=[0, 1, 2], last_step=[0, 1])
    column = uneven.columns.add(stat="loss", keeps="max", width=1)
    column.values = np.zeros(3, "<f4").tobytes()
    log = log_of(with_header(spans_0=[uneven.SerializeToString(), *spans(steps_of(0, 2))]))
    assert steps_in(log) == [0, 1, 2]
    assert log.problems[0].startswith("nanwatch/0/spans/0: ")


@pytest.mark.parametrize("tensor", [np.array([b"a", b"b"], object), np.array(3.5), np.array("text", object)])
def test_a_tensor_without_a_message_is_reported(tensor):
    content = decode_tag(parse_tag("nanwatch/0/header"), [Datum(0.0, tensor)])
    assert content.written == ()
    assert content.problems[0].startswith("nanwatch/0/header: a stored message must be one string of bytes; found")


def test_a_session_of_a_newer_major_version_is_rejected_and_other_sessions_are_kept():
    message = nanwatch_pb2.Header(schema=nanwatch_pb2.Version(major=2, minor=0), session=1)
    newer = {"nanwatch/1/header": [message.SerializeToString()], "nanwatch/1/spans/0": spans(steps_of(0, 3))}
    log = log_of(with_header(spans_0=spans(steps_of(0, 4))) | newer)
    assert [session.header.session for session in log.sessions] == [0]
    assert log.problems == (
        "nanwatch/1/header: a log must be of schema 1.x to be read; this one is 2.0: upgrade tb_nanwatch.",
    )


def test_without_a_header_the_alert_still_gives_a_verdict():
    messages = {"nanwatch/0/spans/0": spans(steps_of(0, 8)), "nanwatch/0/alerts/9-0": [wire.encode_alert(ALERT)]}
    log = log_of(messages)
    verdict = diagnose(log)
    assert verdict.text == "Step 9: NaN first appeared in the loss."
    assert ColumnKey("grad_norm", "max") not in log.sessions[0].series.columns
    assert log.problems == ("session 0 has no header that can be read: its variables have no names.",)


def test_a_chunk_that_contradicts_the_header_is_left_out():
    wide = dataclasses.replace(
        HEADER, variables=(*HEADER.variables, dataclasses.replace(HEADER.variables[0], name="x"))
    )
    log = log_of(with_header(spans_0=spans(steps_of(0, 2), steps_of(3, 5, header=wide))))
    assert steps_in(log) == [0, 1, 2]
    assert log.problems == (
        "session 0, the chunk of steps 3 to 5: grad_norm must be as wide as the header says, 4; got 5.",
    )


def test_a_chunk_with_other_columns_than_the_first_is_left_out():
    chunk = steps_of(3, 5)
    incomplete = dataclasses.replace(chunk, columns={k: v for k, v in chunk.columns.items() if k.stat != "loss"})
    log = log_of(with_header(spans_0=spans(steps_of(0, 2), incomplete)))
    assert steps_in(log) == [0, 1, 2]
    assert "must have the columns of the first chunk" in log.problems[0]


def test_a_statistic_that_lacks_a_column_is_left_out():
    chunk = steps_of(0, 5)
    half = {key: column for key, column in chunk.columns.items() if key != ("global_norm", "max")}
    series = log_of(with_header(spans_0=spans(dataclasses.replace(chunk, columns=half)))).sessions[0].series
    assert {key.stat for key in series.columns} & {"global_norm", "loss"} == {"loss"}


def test_an_unknown_statistic_is_left_out():
    chunk = steps_of(0, 2)
    more = {**chunk.columns, ColumnKey("mystery", "max"): np.ones((3, 2), np.float32)}
    log = log_of(with_header(spans_0=spans(dataclasses.replace(chunk, columns=more))))
    assert "mystery" not in {key.stat for key in log.sessions[0].series.columns}
    assert log.problems == ()


@pytest.mark.parametrize("steps", [[-5, -4], [2**62, 2**62 + 1]])
def test_steps_out_of_range_are_rejected(steps):
    log = log_of(with_header(spans_0=spans(series_at(steps))))
    assert len(log.sessions[0].series) == 0
    assert "steps must be from 0 to 1125899906842623" in log.problems[0]


def test_the_last_steps_of_a_killed_process_come_from_the_alert():
    log = log_of(with_header(spans_0=spans(steps_of(0, 5)), **{"alerts_9-0": [wire.encode_alert(ALERT)]}))
    assert steps_in(log) == list(range(10))
    assert log.sessions[0].steps_seen == 10


def test_an_alert_whose_window_contradicts_the_header_is_left_out():
    wide = dataclasses.replace(HEADER, tensors=("a", "b"))
    alert = dataclasses.replace(ALERT, window=steps_of(0, 9, header=wide))
    log = log_of(with_header(**{"alerts_9-0": [wire.encode_alert(alert)]}))
    assert log.sessions[0].alerts == ()
    assert log.problems[0].startswith("session 0, the alert of step 9: tensor_norm must be as wide")


def test_a_session_without_clipping_gets_derived_columns_of_clipping():
    grads = np.array([[3.0, 1.0, 1.0, math.nan]] * 2)
    series = log_of(with_header(spans_0=spans(steps_of(0, 1, grad_norm=grads)))).sessions[0].series
    assert series.column("clipped_norm", "max")[0, :3].tolist() == [3.0, 1.0, 1.0]
    assert series.column("clipped_global_norm", "mean")[:, 0].tolist() == [1.0, 1.0]
    assert series.column("clip_ratio", "min")[0, :3].tolist() == [1.0, 1.0, 1.0]
    assert math.isnan(series.column("clip_ratio", "mean")[0, 3])
    assert series.column("clip_ratio", "kinds").max() == 0


def test_a_session_with_clipping_gets_no_derived_columns():
    header = dataclasses.replace(HEADER, clip="other", stats=("loss",))
    chunk = steps_of(0, 1)
    series = log_of(with_header(header, spans_0=spans(chunk))).sessions[0].series
    assert "clipped_norm" not in {key.stat for key in series.columns}


def test_bookkeeping_of_a_finite_log_takes_no_storage():
    series = log_of(with_header(spans_0=spans(steps_of(0, 5), steps_of(6, 9)))).sessions[0].series
    assert series.column("grad_norm", "first_nonfinite").strides[1] == 0
    assert series.column("grad_norm", "first_nonfinite").tolist() == [[-1] * 4] * 10


def test_bookkeeping_of_a_bad_step_is_kept():
    bad = only_at(8, math.nan, first=6, last=9, width=4, column=2)
    series = log_of(with_header(spans_0=spans(steps_of(0, 5), steps_of(6, 9, grad_norm=bad)))).sessions[0].series
    assert series.column("grad_norm", "first_nonfinite")[8].tolist() == [-1, -1, 8, -1]


def test_bookkeeping_shared_by_all_variables_is_kept():
    count = np.broadcast_to(np.array([[1], [0], [1]]), (3, 4))
    chunk = steps_of(0, 2)
    changed = dataclasses.replace(chunk, columns={**chunk.columns, ColumnKey("grad_norm", "nonfinite"): count})
    header, tag = parse_tag("nanwatch/0/header"), parse_tag("nanwatch/0/spans/0")
    contents = {header: TagContent((Written(0.0, HEADER),)), tag: TagContent((Written(1.0, changed),))}
    series = assemble("run", contents).sessions[0].series
    assert series.column("grad_norm", "nonfinite").tolist() == [[1] * 4, [0] * 4, [1] * 4]


SECOND = replayed(ALERT, batch="nanwatch/batches/step-9.npz")


def test_the_two_messages_of_a_bad_step_are_one_alert():
    alerts = {"alerts_9-0": [wire.encode_alert(ALERT)], "alerts_9-1": [wire.encode_alert(SECOND)]}
    log = log_of(with_header(spans_0=spans(steps_of(0, 5)), **alerts))
    (alert,) = log.sessions[0].alerts
    assert (alert.replay, alert.batch, len(alert.window)) == (REPLAY, "nanwatch/batches/step-9.npz", 10)
    assert (steps_in(log), log.sessions[0].steps_seen, log.problems) == (list(range(10)), 10, ())


def test_a_second_message_alone_still_reports_the_step():
    log = log_of(with_header(spans_0=spans(steps_of(0, 5)), **{"alerts_9-1": [wire.encode_alert(SECOND)]}))
    assert log.sessions[0].steps_seen == 7
    assert diagnose(log).first.op.type == "Square"


def test_a_batch_path_outside_the_run_is_rejected():
    outside = dataclasses.replace(SECOND, batch="../../secret.npz")
    log = log_of(with_header(**{"alerts_9-0": [wire.encode_alert(ALERT)], "alerts_9-1": [wire.encode_alert(outside)]}))
    assert (log.sessions[0].alerts[0].batch, diagnose(log).first.batch) == (None, None)
    assert log.problems == (
        "session 0, the alert of step 9: its batch must lie below the run's directory, and does not.",
    )


def test_only_the_first_of_many_problems_are_reported():
    log = log_of(with_header(**{f"spans_{number}": [b"\xff"] for number in range(30)}))
    assert len(log.problems) == 21
    assert log.problems[-1] == "and 10 more."


MESSAGES = {
    "nanwatch/0/header": wire.encode_header(HEADER),
    "nanwatch/0/spans/0": wire.encode_series(steps_of(0, 5, loss=[1, 2, math.nan, 4, 5, math.inf])),
    "nanwatch/0/alerts/9-0": wire.encode_alert(ALERT),
    "nanwatch/0/alerts/9-1": wire.encode_alert(SECOND),
}


@given(st.data())
def test_a_damaged_message_never_makes_the_diagnosis_fail(data):
    damaged = dict(MESSAGES)
    name = data.draw(st.sampled_from(sorted(damaged)))
    message = bytearray(damaged[name])
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    damaged[name] = bytes(message)
    with np.errstate(all="ignore"):
        verdict = diagnose(log_of({name: [message] for name, message in damaged.items()}))
    assert verdict.status in {"finite", "nonfinite", "warning", "incomplete", "empty"}
    assert_printable(verdict)


@given(replays())
def test_a_replay_never_makes_the_diagnosis_fail(replay):
    assert_printable(diagnose(RunLog("run", (SessionLog(HEADER, steps_of(0, 9), (replayed(ALERT, replay),)),))))


def assert_printable(verdict):
    """Check that a verdict can be encoded as JSON and printed in single lines."""
    assert dumps(verdict)
    assert all(line.plain.isprintable() for line in lines_of(verdict, logdir="runs"))


def test_the_messages_are_valid_without_damage():
    log = log_of({name: [message] for name, message in MESSAGES.items()})
    assert log.problems == ()
    assert diagnose(log).first.step == 2
    assert json_format.MessageToDict(nanwatch_pb2.Header.FromString(MESSAGES["nanwatch/0/header"]))["clip"] == "none"


def test_an_empty_run_is_empty():
    assert assemble("run", {}).sessions == ()
    assert isinstance(log_of(with_header()).sessions[0].series, Series)
