"""Records decode unchanged from bytes; other bytes are rejected."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.errors import RecordError, SchemaError
from tb_nanwatch.numerics.spans import single_steps
from tb_nanwatch.schema import nanwatch_pb2 as pb
from tb_nanwatch.schema import wire
from tb_nanwatch.schema.records import ColumnKey, Counts, Finding, Header, Series
from tests.strategies import alerts, headers, span_series

ROOT = Path(__file__).parent.parent.parent


def assert_same_series(a: Series, b: Series) -> None:
    np.testing.assert_array_equal(a.first_step, b.first_step)
    np.testing.assert_array_equal(a.last_step, b.last_step)
    assert a.columns.keys() == b.columns.keys()
    for key, column in a.columns.items():
        np.testing.assert_array_equal(column, b.columns[key])


@given(headers())
def test_a_header_decodes_unchanged(header):
    assert wire.decode_header(wire.encode_header(header)) == header


@given(span_series())
def test_spans_decode_unchanged(series):
    assert_same_series(wire.decode_series(wire.encode_series(series)), series)


@given(alerts())
def test_an_alert_decodes_unchanged(alert):
    decoded = wire.decode_alert(wire.encode_alert(alert))
    assert (decoded.step, decoded.session, decoded.first_step, decoded.action) == (
        alert.step,
        alert.session,
        alert.first_step,
        alert.action,
    )
    assert (decoded.findings, decoded.replay, decoded.batch) == (alert.findings, alert.replay, alert.batch)
    assert_same_series(decoded.window, alert.window)


def healthy(steps: int) -> Series:
    return single_steps(
        np.arange(steps), {"grad_norm": np.ones((steps, 100))}, {"grad_norm": np.zeros((steps, 100), np.uint8)}
    )


def test_a_finite_step_stores_no_bookkeeping():
    # Three merges of 100 float32 each, and a few bytes for two step numbers.
    assert len(wire.encode_series(healthy(64))) / 64 < 3 * 400 + 8


def test_a_finite_float64_beyond_float32_is_stored_as_finite():
    one = np.zeros(1, np.int64)
    series = Series(
        one, one, {ColumnKey("loss", "max"): np.array([[1e300]]), ColumnKey("loss", "min"): np.array([[-np.inf]])}
    )
    decoded = wire.decode_series(wire.encode_series(series))
    assert decoded.column("loss", "max") == np.finfo(np.float32).max
    assert decoded.column("loss", "min") == -np.inf


@given(st.binary(max_size=200), st.sampled_from([wire.decode_header, wire.decode_series, wire.decode_alert]))
def test_arbitrary_bytes_decode_or_raise_a_record_error(data, decode):
    with suppress(RecordError):
        decode(data)


@given(st.data())
def test_cut_or_flipped_bytes_decode_or_raise_a_record_error(data):
    whole = wire.encode_alert(data.draw(alerts()))
    place = data.draw(st.integers(0, len(whole) - 1))
    for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :]):
        with suppress(RecordError):
            wire.decode_alert(damaged)


def test_a_column_of_the_wrong_size_is_rejected_by_name():
    message = pb.SpanChunk(first_step=[0], last_step=[0])
    message.columns.add(stat="loss", keeps="max", width=1, values=b"\0" * 8)
    with pytest.raises(RecordError, match=r"stat='loss', keeps='max'\) must hold 1 x 1 values of float32; got 8 bytes"):
        wire.decode_series(message.SerializeToString())


def test_a_span_without_a_last_step_is_rejected():
    with pytest.raises(RecordError, match="a first and a last step for each span; got 2 and 1"):
        wire.decode_series(pb.SpanChunk(first_step=[0, 1], last_step=[0]).SerializeToString())


def versioned(major: int, minor: int) -> pb.Header:
    message = pb.Header()
    message.ParseFromString(wire.encode_header(Header(session=3, variables=())))
    message.schema.major, message.schema.minor = major, minor
    return message


def test_a_newer_major_version_is_rejected_with_both_numbers():
    with pytest.raises(SchemaError, match=r"schema 1\.x to be read; this one is 2\.0: upgrade tb_nanwatch"):
        wire.decode_header(versioned(2, 0).SerializeToString())


def test_a_newer_minor_version_is_decoded_with_a_remark():
    unknown_field = b"\xfa\x01\x01x"
    data = versioned(1, 77).SerializeToString() + unknown_field
    assert wire.newer_version(data).startswith("the log is of schema 1.77, newer than 1.")
    assert wire.decode_header(data).session == 3


def test_a_finding_with_an_unknown_role_is_left_out():
    message = pb.Alert(step=4, action="raised")
    message.findings.add(role=pb.ROLE_LOSS, name="loss", size=1, nan=1)
    message.findings.add(role=99, name="future", size=1, nan=1)
    (finding,) = wire.decode_alert(message.SerializeToString()).findings
    assert finding == Finding("loss", "loss", Counts(1, 1, 0, 0))


@pytest.mark.skipif(shutil.which("protoc") is None, reason="protoc comes with the dev extra")
def test_the_generated_module_is_what_protoc_writes(tmp_path):
    proto = "tb_nanwatch/schema/nanwatch.proto"
    command = ["protoc", "-I", ".", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", proto]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("nanwatch_pb2.py", "nanwatch_pb2.pyi"):
        assert (tmp_path / "tb_nanwatch/schema" / name).read_text() == (ROOT / "tb_nanwatch/schema" / name).read_text()


def test_an_unmeasured_variable_stores_only_its_own_bookkeeping():
    values = np.ones((64, 100))
    values[:, 7] = np.nan
    series = single_steps(np.arange(64), {"grad_norm": values}, {"grad_norm": np.zeros((64, 100), np.uint8)})
    data = wire.encode_series(series)
    assert len(data) - len(wire.encode_series(healthy(64))) < 64 * 8 + 40
    assert_same_series(wire.decode_series(data), series)


@given(st.lists(span_series() | st.binary(max_size=20), max_size=6))
def test_decoding_chunks_together_equals_decoding_each_alone(chunks):
    data = [chunk if isinstance(chunk, bytes) else wire.encode_series(chunk) for chunk in chunks]
    groups = list(wire.decode_chunks(data))
    assert sum(count for count, _ in groups) == len(data)
    steps = [step for _, series in groups if isinstance(series, Series) for step in series.first_step.tolist()]
    expected = []
    for chunk in data:
        with suppress(RecordError):
            expected += wire.decode_series(chunk).first_step.tolist()
    assert steps == expected


def test_consecutive_chunks_become_one_series():
    series = healthy(64)
    data = [wire.encode_series(series.rows(slice(at, at + 16))) for at in (0, 16, 32, 48)]
    ((count, joined),) = wire.decode_chunks(data)
    assert count == 4
    assert_same_series(joined, series)


def test_places_beyond_the_width_are_rejected():
    column = pb.Column(stat="loss", keeps="count", width=1, values=bytes(8), places=[1])
    with pytest.raises(RecordError, match="places must be of a bookkeeping column, below its width"):
        wire.decode_series(pb.SpanChunk(first_step=[0], last_step=[0], columns=[column]).SerializeToString())


def test_a_message_with_too_many_names_or_links_is_rejected():
    header = pb.Header(schema=pb.Version(major=1), variables=[pb.Variable(name=str(n)) for n in range(2**17 + 1)])
    with pytest.raises(RecordError, match="at most 131,072 variables and tensors; got 131,073"):
        wire.decode_header(header.SerializeToString())
    alert = pb.Alert(findings=[pb.Finding(role=pb.ROLE_LOSS)] * (2**17 + 1))
    with pytest.raises(RecordError, match="at most 131,072 findings; got 131,073"):
        wire.decode_alert(alert.SerializeToString())
    alert = pb.Alert(replay=pb.Replay(chains=[pb.Chain(links=[pb.Link()] * 4097)]))
    with pytest.raises(RecordError, match="at most 4,096 links; got 4,097"):
        wire.decode_alert(alert.SerializeToString())


@pytest.mark.parametrize("width", [5, 2**32 - 1])
def test_a_column_of_another_width_than_its_statistic_is_rejected(width):
    chunk = pb.SpanChunk(first_step=[0], last_step=[0])
    chunk.columns.add(stat="loss", keeps="max", width=1, values=bytes(4))
    chunk.columns.add(stat="loss", keeps="count", width=width, values=bytes(8), places=[0])
    with pytest.raises(RecordError, match=f"as wide as the others of its statistic; got {width}"):
        wire.decode_series(chunk.SerializeToString())
    del chunk.columns[0]
    with pytest.raises(RecordError, match="as wide as the others of its statistic"):
        wire.decode_series(chunk.SerializeToString())


def test_a_repeated_column_is_rejected():
    chunk = pb.SpanChunk(first_step=[0], last_step=[0])
    for _ in range(2):
        chunk.columns.add(stat="loss", keeps="max", width=1, values=bytes(4))
    with pytest.raises(RecordError, match="must have each column once"):
        wire.decode_series(chunk.SerializeToString())
