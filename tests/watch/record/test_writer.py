"""The files in a directory number the next session, also files of other writers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Series
from tb_nanwatch.watch.record.writer import Writer


def numbers_of(path: Path) -> list[int]:
    files = (path / "nanwatch").glob("*tfevents*")
    return sorted(int(re.search(r"session-(\d+)", file.name)[1]) for file in files)


def write_sessions(path, count):
    """Write sessions as a watch does if its step goes back, and return their numbers."""
    writer = Writer(str(path))
    numbers = []
    for _ in range(count):
        numbers.append(writer.next_session())
        writer.write_header(Header(numbers[-1], ()))
    writer.close()
    return numbers


def alert_of(step):
    nothing = np.zeros(0, np.int64)
    found = Finding("loss", "loss", Counts(size=1, nan=1, pos_inf=0, neg_inf=0))
    return Alert(step, 0, 0, "recorded", (found,), Series(nothing, nothing, {}))


def test_a_watch_after_one_with_several_sessions_goes_on_counting(tmp_path):
    assert [write_sessions(tmp_path, count) for count in (3, 1, 2)] == [[0, 1, 2], [3], [4, 5]]
    assert numbers_of(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_a_file_that_was_deleted_frees_no_number_below_the_last(tmp_path):
    write_sessions(tmp_path, 3)
    next((tmp_path / "nanwatch").glob("*session-0*")).unlink()
    assert write_sessions(tmp_path, 1) == [3]


def test_files_without_a_number_are_counted(tmp_path):
    for number in range(3):
        with tf.summary.create_file_writer(str(tmp_path / "nanwatch"), filename_suffix=f".{number}").as_default():
            tf.summary.text("other", "text", step=0)
    assert write_sessions(tmp_path, 1) == [3]


def test_sessions_are_numbered_although_the_directory_cannot_be_read(tmp_path):
    (tmp_path / "nanwatch").write_text("not a directory")
    writer = Writer(str(tmp_path))
    assert [writer.next_session() for _ in range(2)] == [0, 1]


def test_all_sessions_of_two_watches_are_read_back(tmp_path, read):
    for _ in range(2):
        write_sessions(tmp_path, 2)
    assert [session.header.session for session in read(tmp_path).log.sessions] == [0, 1, 2, 3]


def test_a_session_that_goes_on_after_a_close_overwrites_nothing(tmp_path, read):
    writer = Writer(str(tmp_path))
    header = Header(writer.next_session(), ())
    writer.write_header(header)
    for step in range(3):
        writer.close()
        writer.write_alert(alert_of(step))
    writer.close()
    assert [alert.step for alert in read(tmp_path).session.alerts] == [0, 1, 2]


def test_a_new_file_comes_last_by_its_name(tmp_path):
    for number in range(3):
        write_sessions(tmp_path, 1)
        newest = max((tmp_path / "nanwatch").iterdir(), key=lambda file: file.name)
        assert f".session-{number}." in newest.name
