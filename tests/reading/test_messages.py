"""The events of a tag are decoded in order, spans are joined, and each fault is reported once."""

from __future__ import annotations

import numpy as np
import pytest

from tb_nanwatch.reading import messages
from tb_nanwatch.reading.messages import Datum, decode_tag
from tb_nanwatch.reading.tags import parse_tag
from tb_nanwatch.schema import nanwatch_pb2, wire
from tb_nanwatch.schema.records import Alert, Counts, Finding, Series
from tests.event_files import HEADER, steps_of

HEADER_TAG = parse_tag("nanwatch/0/header")
SPANS_TAG = parse_tag("nanwatch/0/spans/0")
ALERT_TAG = parse_tag("nanwatch/0/alerts/9-0")
ALERT = Alert(9, 0, 0, "raised", (Finding("loss", "loss", Counts(1, 1, 0, 0)),), steps_of(0, 9))


def events(*messages_of_tag, times=None):
    timed = zip(times or range(99), messages_of_tag, strict=False)
    return [Datum(float(time), np.array(message, object)) for time, message in timed]


def chunk(first, last):
    return wire.encode_series(steps_of(first, last))


def steps_in(content):
    return [entry.record.first_step.tolist() for entry in content.written]


def test_a_header_and_an_alert_have_their_time_of_writing():
    (header,) = decode_tag(HEADER_TAG, events(wire.encode_header(HEADER), times=[3.5])).written
    assert (header.wall_time, header.record) == (3.5, HEADER)
    (alert,) = decode_tag(ALERT_TAG, events(wire.encode_alert(ALERT), times=[4.5])).written
    assert (alert.wall_time, alert.record.step, alert.record.findings) == (4.5, 9, ALERT.findings)


def test_chunks_become_one_series_with_the_time_of_the_last_chunk():
    content = decode_tag(SPANS_TAG, events(chunk(0, 2), chunk(3, 4), times=[7.0, 8.0]))
    assert steps_in(content) == [[0, 1, 2, 3, 4]]
    assert content.written[0].wall_time == 8.0


def test_events_are_decoded_in_the_order_of_writing():
    content = decode_tag(SPANS_TAG, events(chunk(3, 4), chunk(0, 2), times=[8.0, 7.0]))
    assert steps_in(content) == [[0, 1, 2, 3, 4]]


def test_chunks_before_and_after_a_fault_have_separate_times():
    content = decode_tag(SPANS_TAG, events(chunk(0, 2), b"\xff\xff", chunk(3, 4), chunk(5, 6), times=[1, 2, 3, 4]))
    assert steps_in(content) == [[0, 1, 2], [3, 4, 5, 6]]
    assert [entry.wall_time for entry in content.written] == [1.0, 4.0]
    assert len(content.problems) == 1


@pytest.mark.parametrize("tag", [HEADER_TAG, SPANS_TAG, ALERT_TAG])
def test_a_repeated_fault_is_reported_once(tag):
    content = decode_tag(tag, events(b"\xff\xff", b"\xff\xff"))
    assert content.written == ()
    (problem,) = content.problems
    assert problem.startswith(f"{tag.name}: 2 bytes do not decode as ")
    assert problem.endswith(".")


def test_columns_of_the_wrong_size_are_a_problem_of_the_tag():
    message = nanwatch_pb2.Alert()
    message.ParseFromString(wire.encode_alert(ALERT))
    message.window.columns[0].values += b"\0"
    content = decode_tag(ALERT_TAG, events(message.SerializeToString()))
    assert content.written == ()
    assert content.problems[0].startswith("nanwatch/0/alerts/9-0: column ")


def test_an_error_of_numpy_is_a_problem_of_the_tag(monkeypatch):
    monkeypatch.setitem(messages._DECODERS, "alerts", lambda _: np.zeros(3).reshape(2))
    content = decode_tag(ALERT_TAG, events(b"?"))
    assert content.problems == ("nanwatch/0/alerts/9-0: cannot reshape array of size 3 into shape (2,).",)


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (np.array([b"a", b"b"], object), r"object of shape (2,)"),
        (np.array(3.5), "float64 of shape ()"),
        (np.array("text", object), "object of shape ()"),
    ],
)
def test_a_tensor_without_a_message_is_reported_with_dtype_and_shape(tensor, found):
    content = decode_tag(SPANS_TAG, [*events(chunk(0, 2)), Datum(5.0, tensor)])
    assert steps_in(content) == [[0, 1, 2]]
    assert content.problems == (f"nanwatch/0/spans/0: a stored message must be one string of bytes; found {found}.",)


def test_a_message_of_a_newer_major_version_marks_its_tag():
    newer = nanwatch_pb2.Header(schema=nanwatch_pb2.Version(major=2, minor=0)).SerializeToString()
    assert decode_tag(HEADER_TAG, events(newer)).is_too_new
    assert not decode_tag(HEADER_TAG, events(b"\xff\xff", wire.encode_header(HEADER))).is_too_new


def test_the_size_of_a_tag_is_the_size_of_its_messages():
    first, second = chunk(0, 2), chunk(3, 9)
    content = decode_tag(SPANS_TAG, [*events(first, second, b"\xff\xff"), Datum(9.0, np.array(3.5))])
    assert content.size == len(first) + len(second) + 2


def test_a_tag_without_events_is_empty():
    content = decode_tag(SPANS_TAG, [])
    assert (content.written, content.problems, content.is_too_new, content.size) == ((), (), False, 0)


def test_a_decoded_series_has_the_written_values():
    (entry,) = decode_tag(
        SPANS_TAG, events(wire.encode_series(steps_of(0, 2, grad_norm=[[1.0, 2.0, 3.0, 4.0]] * 3)))
    ).written
    assert isinstance(entry.record, Series)
    assert entry.record.column("grad_norm", "max").tolist() == [[1.0, 2.0, 3.0, 4.0]] * 3


def test_the_last_incomplete_span_replaces_earlier_ones():
    content = decode_tag(parse_tag("nanwatch/0/rest"), events(chunk(6, 6), chunk(2, 3), times=[8.0, 7.0]))
    assert steps_in(content) == [[6]]
