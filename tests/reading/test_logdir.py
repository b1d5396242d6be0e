"""A directory of event files is read, and a damaged file as far as possible."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tb_nanwatch.errors import LogdirError
from tb_nanwatch.reading.logdir import THE_LOGDIR, local_runs, open_logdir
from tests.event_files import HEADER, RunWriter, framed, only_at, steps_of


def verdicts_in(logdir):
    reader = open_logdir(str(logdir))
    return {verdict.run: verdict for verdict in reader.verdicts(reader.index(THE_LOGDIR)).runs}


def write_run(directory, *, chunks=10):
    writer = RunWriter(directory / "nanwatch").header()
    for number in range(chunks):
        writer.spans(steps_of(number * 10, number * 10 + 9))
    return writer.path


def test_every_event_of_a_tag_is_read(tmp_path):
    writer = RunWriter(tmp_path / "long" / "nanwatch").header()
    bad = only_at(1, math.nan, first=1, last=1)
    for step in range(1500):
        writer.spans(steps_of(step, step, **({"loss": bad} if step == 1 else {})))
    (verdict,) = verdicts_in(tmp_path).values()
    assert (verdict.steps_seen, verdict.first.step) == (1500, 1)


def test_runs_are_named_after_their_directories(tmp_path):
    for name in (".", "relu", "deep/er"):
        write_run(tmp_path / name)
    RunWriter(tmp_path / "other").message("nanwatch/0/header", b"", step=0)
    assert sorted(verdicts_in(tmp_path)) == [".", "deep/er", "relu"]
    assert sorted(verdicts_in(tmp_path / "relu")) == ["."]
    assert sorted(verdicts_in(tmp_path / "relu" / "nanwatch")) == ["."]


def test_the_current_directory_is_a_logdir(tmp_path, monkeypatch):
    write_run(tmp_path / "relu")
    monkeypatch.chdir(tmp_path)
    assert sorted(verdicts_in(".")) == ["relu"]
    monkeypatch.chdir(tmp_path / "relu" / "nanwatch")
    assert sorted(verdicts_in(".")) == ["."]


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    write_run(tmp_path / "relu")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sorted(verdicts_in("~")) == ["relu"]


def test_links_are_followed_without_endless_rings(tmp_path):
    write_run(tmp_path / "elsewhere" / "relu")
    (tmp_path / "logdir").mkdir()
    (tmp_path / "logdir" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "ring").symlink_to(tmp_path / "elsewhere")
    assert sorted(verdicts_in(tmp_path / "logdir")) == ["linked/relu"]


def test_several_files_of_a_run_are_read_in_order(tmp_path):
    write_run(tmp_path, chunks=5)
    RunWriter(tmp_path / "nanwatch", name="events.out.tfevents.1.here").spans(steps_of(50, 59))
    assert verdicts_in(tmp_path)["."].steps_seen == 60


def test_a_file_that_ends_within_a_record_is_read_up_to_that_record(tmp_path):
    path = write_run(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    verdict = verdicts_in(tmp_path)["."]
    assert (verdict.status, verdict.steps_seen) == ("incomplete", 90)
    assert verdict.unreadable == (
        "events.out.tfevents.0.here ends within a record: its writer was stopped, or is still writing.",
    )


def test_records_before_and_after_a_flipped_bit_are_read(tmp_path):
    path = write_run(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    verdict = verdicts_in(tmp_path)["."]
    assert (verdict.status, verdict.steps_seen, len(verdict.unreadable)) == ("incomplete", 90, 1)


def test_a_file_that_is_damaged_from_the_start_is_still_a_run(tmp_path):
    path = write_run(tmp_path / "relu")
    path.write_bytes(b"no event file at all, but long enough for a header")
    write_run(tmp_path / "whole")
    verdicts = verdicts_in(tmp_path)
    assert verdicts["relu"].status == "incomplete"
    assert verdicts["relu"].text == "No step of this run could be read."
    assert (verdicts["whole"].status, verdicts["whole"].problems) == ("finite", ())


def test_a_record_that_is_no_event_damages_no_other_run(tmp_path):
    path = write_run(tmp_path / "a")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes() + framed(b"\xff\xff\xff"))
    write_run(tmp_path / "b")
    verdicts = verdicts_in(tmp_path)
    assert (verdicts["a"].steps_seen, verdicts["b"].steps_seen) == (100, 100)
    assert verdicts["a"].unreadable == (f"events.out.tfevents.0.here: bytes {whole:,} to {whole + 19:,} are damaged.",)
    assert verdicts["b"].problems == ()


def test_a_restarted_run_keeps_the_steps_of_both_sessions(tmp_path):
    writer = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 99))
    writer.header(dataclasses.replace(HEADER, session=1)).spans(steps_of(50, 149), session=1)
    assert verdicts_in(tmp_path)["."].steps_seen == 200


def test_a_session_start_event_removes_no_steps(tmp_path):
    writer = RunWriter(tmp_path / "nanwatch").session_start().header().spans(steps_of(0, 9))
    writer.session_start().spans(steps_of(10, 19))
    assert verdicts_in(tmp_path)["."].steps_seen == 20


def test_an_empty_directory_has_no_runs(tmp_path):
    assert verdicts_in(tmp_path) == {}
    RunWriter(tmp_path / "nanwatch")
    assert verdicts_in(tmp_path) == {}


@pytest.mark.parametrize(("name", "found"), [("missing", "nothing"), ("file", "a file")])
def test_a_logdir_must_be_an_existing_directory(tmp_path, name, found):
    (tmp_path / "file").write_text("text", encoding="utf-8")
    path = tmp_path / name
    with pytest.raises(LogdirError, match=f"a logdir must be a directory; at {path} there is {found}"):
        open_logdir(str(path))


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-this-name/runs"])
def test_a_logdir_must_be_a_path(name):
    with pytest.raises(LogdirError, match="a logdir must be a directory"):
        open_logdir(name)


def test_the_local_directories_of_a_tensorboard_are_found(tmp_path):
    write_run(tmp_path / "relu")
    assert list(local_runs(str(tmp_path)).scan()) == ["relu/nanwatch"]
    assert list(local_runs("", f"mine:{tmp_path},gs://bucket/runs").scan()) == ["mine/relu/nanwatch"]
    assert local_runs("") is None
    assert local_runs("gs://bucket/runs") is None


PROGRAM = """
import sys
from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir
reader = open_logdir(sys.argv[1])
print(reader.verdicts(reader.index(THE_LOGDIR)).runs[0].steps_seen, "tensorflow" in sys.modules)
"""


def read_in_a_program(logdir):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM, str(logdir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return done.stdout.split()


def test_reading_does_not_import_tensorflow(tmp_path):
    write_run(tmp_path)
    assert read_in_a_program(tmp_path) == ["100", "False"]
