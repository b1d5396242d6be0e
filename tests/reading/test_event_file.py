"""An event file is read record by record: damage is reported and costs only the damaged records."""

from __future__ import annotations

import os
import struct

import pytest
from tensorboard.compat.proto import event_pb2, tensor_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from tb_nanwatch.reading import event_file
from tb_nanwatch.reading.event_file import EventFile
from tb_nanwatch.reading.tags import parse_tag
from tests.event_files import RunWriter, framed, steps_of

SPANS = parse_tag("nanwatch/0/spans/0")
NAME = "events.out.tfevents.0.here"


class Log:
    """A file of ten chunks, and the offset of each of its records."""

    def __init__(self, directory, *, name=NAME):
        writer = RunWriter(directory, name=name).header()
        self.path = writer.path
        self.begins = []
        for number in range(10):
            self.begins.append(self.path.stat().st_size)
            writer.spans(steps_of(number * 10, number * 10 + 9))
        self.writer, self.data = writer, bytearray(self.path.read_bytes())
        self.begins.append(len(self.data))

    def damaged(self):
        self.path.write_bytes(self.data)
        return refreshed(self.path)


def refreshed(path):
    file = EventFile(path)
    file.refresh()
    return file


def steps_in(file):
    return [place.step for place in file.places.get(SPANS, ())]


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


def test_an_undamaged_file_is_read_completely(log):
    file = refreshed(log.path)
    assert (file.problems, file.is_irregular) == ((), False)
    assert [datum.tensor.item()[:2] for datum in file.read(SPANS)] == [b"\n\n"] * 10
    assert [datum.wall_time for datum in file.read(SPANS)] == [float(second) for second in range(3, 13)]


@pytest.mark.parametrize("offset", [0, 9, 12, 40, -1], ids=["length", "its checksum", "event", "content", "checksum"])
def test_a_flipped_bit_damages_only_its_record(log, offset):
    begin, end = log.begins[3:5]
    log.data[begin + offset if offset >= 0 else end + offset] ^= 4
    file = log.damaged()
    assert steps_in(file) == [9, 19, 29, 49, 59, 69, 79, 89, 99]
    assert file.problems == (f"{NAME}: bytes {begin:,} to {end:,} are damaged.",)
    assert file.is_irregular


def test_a_block_of_zeros_is_one_damaged_part(log):
    begin, end = log.begins[3] + 50, log.begins[6] + 50
    log.data[begin:end] = bytes(end - begin)
    file = log.damaged()
    assert steps_in(file) == [9, 19, 29, 79, 89, 99]
    assert file.problems == (f"{NAME}: bytes {log.begins[3]:,} to {log.begins[7]:,} are damaged.",)


def test_missing_bytes_damage_only_their_records(log):
    del log.data[log.begins[3] + 50 : log.begins[4] + 50]
    file = log.damaged()
    assert steps_in(file) == [9, 19, 29, 59, 69, 79, 89, 99]
    assert len(file.problems) == 1


def test_damage_up_to_the_end_is_reported(log):
    log.data[log.begins[8] :] = bytes(len(log.data) - log.begins[8])
    file = log.damaged()
    assert steps_in(file) == [9, 19, 29, 39, 49, 59, 69, 79]
    assert file.problems == (f"{NAME}: bytes {log.begins[8]:,} to {log.begins[10]:,} are damaged.",)


@pytest.mark.parametrize("kept", [1, 11, 12, 13, 100])
def test_a_cut_record_is_reported_and_tensorboard_reads_the_same(log, kept):
    del log.data[log.begins[9] + kept :]
    file = log.damaged()
    assert steps_in(file) == [9, 19, 29, 39, 49, 59, 69, 79, 89]
    assert file.problems == (f"{NAME} ends within a record: its writer was stopped, or is still writing.",)
    assert not file.is_irregular


@pytest.mark.parametrize("length", [2**62, 2**63 + 5, 2**64 - 1, 20 * 2**30])
def test_a_length_beyond_the_file_is_a_cut_record(log, length):
    head = struct.pack("<Q", length)
    log.data += head + struct.pack("<I", masked_crc32c(head)) + b"x" * 100
    file = log.damaged()
    assert len(steps_in(file)) == 10
    assert file.problems == (f"{NAME} ends within a record: its writer was stopped, or is still writing.",)


def test_swapped_records_are_read_and_reported_as_out_of_order(log):
    begin, middle, end = log.begins[3], log.begins[4], log.begins[5]
    log.data[begin:end] = log.data[middle:end] + log.data[begin:middle]
    file = log.damaged()
    assert steps_in(file) == [9, 19, 29, 49, 39, 59, 69, 79, 89, 99]
    assert (file.problems, file.is_out_of_order, file.is_irregular) == ((), True, True)


def test_only_added_records_are_read_again(log, monkeypatch):
    file = refreshed(log.path)
    read_offsets = []
    whole = event_file._content_at
    monkeypatch.setattr(event_file, "_content_at", lambda *args: read_offsets.append(args[1]) or whole(*args))
    file.refresh()
    assert read_offsets == []
    log.writer.spans(steps_of(100, 109))
    file.refresh()
    assert read_offsets == [log.begins[10] + 12]
    assert len(steps_in(file)) == 11


def test_a_cut_record_is_read_after_it_is_complete(log):
    whole = bytes(log.data)
    del log.data[-7:]
    file = log.damaged()
    assert len(file.problems) == 1
    log.path.write_bytes(whole)
    file.refresh()
    assert (file.problems, len(steps_in(file))) == ((), 10)


def test_a_rewritten_file_is_read_again(log):
    file = refreshed(log.path)
    log.data[log.begins[3] + 50] ^= 1
    log.path.write_bytes(log.data)
    os.utime(log.path, ns=(1, 1))
    file.refresh()
    assert len(steps_in(file)) == 9


def test_many_damaged_parts_are_counted(tmp_path):
    writer = RunWriter(tmp_path)
    for step in range(60):
        writer.spans(steps_of(step, step))
        if step % 2:
            with writer.path.open("ab") as file:
                file.write(framed(b"\xff"))
    problems = refreshed(writer.path).problems
    assert len(problems) == 21
    assert problems[-1] == f"{NAME}: 10 more parts are damaged."


def test_the_search_for_the_next_record_has_a_limit(log, monkeypatch):
    monkeypatch.setattr(event_file, "_SEARCH_BYTES", 5000)
    log.data[log.begins[3] : log.begins[3]] = b"\1" * 100_000
    file = log.damaged()
    assert steps_in(file) == [9, 19, 29]
    assert file.problems == (f"{NAME}: bytes {log.begins[3]:,} to {len(log.data):,} are damaged.",)


def test_a_record_above_the_size_limit_is_not_read(log, monkeypatch):
    monkeypatch.setattr(event_file, "MOST_RECORD_BYTES", 5000)
    log.data += framed(event_pb2.Event(file_version="x" * 6000).SerializeToString())
    assert refreshed(log.path).problems == ()
    assert len(log.damaged().problems) == 1


@pytest.mark.parametrize("change", [{"wall_time": float("nan")}, {"metadata": None}, {"tensor": 3.5}])
def test_a_message_that_tensorboard_hides_or_changes_is_irregular(log, change):
    event = event_pb2.Event.FromString(bytes(log.data[log.begins[9] + 12 : log.begins[10] - 4]))
    value = event.summary.value[0]
    if "wall_time" in change:
        event.wall_time = change["wall_time"]
    elif "metadata" in change:
        value.ClearField("metadata")
    else:
        value.tensor.CopyFrom(tensor_pb2.TensorProto(dtype=1, float_val=[3.5]))
    log.data[log.begins[9] :] = framed(event.SerializeToString())
    file = log.damaged()
    assert (file.problems, file.is_irregular) == ((), True)


def test_a_file_of_a_watch_without_a_message_is_reported(tmp_path):
    by_watch = "events.out.tfevents.1700000000.host.1.session-0.v2"
    assert refreshed(RunWriter(tmp_path, name=by_watch).path).problems == (f"{by_watch} holds no message of a watch.",)
    path = RunWriter(tmp_path, name=NAME).path
    assert refreshed(path).problems == ()
    path.write_bytes(b"")
    assert refreshed(path).problems == (f"{NAME} holds no message of a watch.",)


def test_a_directory_or_pipe_is_reported(tmp_path):
    (tmp_path / "tfevents.directory").mkdir()
    os.mkfifo(tmp_path / "tfevents.pipe")
    for path in (tmp_path / "tfevents.directory", tmp_path / "tfevents.pipe"):
        assert refreshed(path).problems == (f"{path.name} cannot be read (it is no regular file).",)


def test_a_deleted_file_is_gone(log):
    file = refreshed(log.path)
    data = log.path.read_bytes()
    log.path.unlink()
    file.refresh()
    assert file.is_gone
    log.path.write_bytes(data)
    file.refresh()
    assert (file.is_gone, file.problems, len(steps_in(file))) == (False, (), 10)
