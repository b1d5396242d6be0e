"""The runs below a directory are read from their files."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tb_nanwatch.reading.event_file import EventFile
from tb_nanwatch.reading.local_runs import LocalRuns
from tb_nanwatch.reading.provider import RunReader
from tb_nanwatch.reading.tags import parse_tag
from tb_nanwatch.schema import wire
from tests.event_files import RunWriter, steps_of
from tests.followed_log import EXPERIMENT, FollowedLog

SPANS = parse_tag("nanwatch/0/spans/0")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_only_a_damaged_run_is_read_from_its_files(tmp_path):
    log = FollowedLog(tmp_path)
    log.writer("whole").header().spans(steps_of(0, 9))
    path = log.writer("damaged").header().spans(steps_of(0, 9)).spans(steps_of(10, 19)).path
    flip(path, -20)
    log.reload()
    log.reader = RunReader(log.provider, files=LocalRuns({str(tmp_path): None}))
    damaged, whole = log.reader.verdicts(log.reader.index(EXPERIMENT)).runs
    assert (damaged.status, damaged.steps_seen, len(damaged.unreadable)) == ("incomplete", 10, 1)
    assert (whole.status, whole.unreadable) == ("finite", ())
    assert {run for run, _ in log.provider.asked} == {"whole/nanwatch"}


def test_the_files_of_several_processes_are_read_as_one_run(tmp_path):
    for part in ("nanwatch", "nanwatch/worker-1"):
        RunWriter(tmp_path / part).header().spans(steps_of(0, 9))
    reader = RunReader(None, files=LocalRuns({str(tmp_path): None}))
    verdict = reader.verdict(reader.index(EXPERIMENT), ".")
    assert (verdict.status, verdict.steps_seen, verdict.problems) == ("finite", 10, ())


def test_damage_to_a_live_run_is_detected(tmp_path):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).spans(steps_of(10, 19)).path
    reader = RunReader(None, files=LocalRuns({str(tmp_path): None}))
    assert reader.verdict(reader.index(EXPERIMENT), ".").status == "finite"
    flip(path, -20)
    os.utime(path, ns=(1, 1))
    assert reader.verdict(reader.index(EXPERIMENT), ".").status == "incomplete"


def test_the_scan_waits_for_a_record_that_is_being_written(tmp_path):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])

    def finish():
        time.sleep(0.02)
        path.write_bytes(whole)

    writer = threading.Thread(target=finish)
    writer.start()
    (summary,) = LocalRuns({str(tmp_path): None}).scan().values()
    writer.join()
    assert summary.problems == ()


def test_the_scan_does_not_wait_for_an_old_file(tmp_path, monkeypatch):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).path
    path.write_bytes(path.read_bytes()[:-7])
    os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    (summary,) = LocalRuns({str(tmp_path): None}).scan().values()
    assert len(summary.problems) == 1


def test_several_files_of_a_run_are_read_in_order(tmp_path):
    RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9))
    RunWriter(tmp_path / "nanwatch", name="events.out.tfevents.1.here").spans(steps_of(10, 19))
    runs = LocalRuns({str(tmp_path): None})
    (summary,) = runs.scan().values()
    assert (summary.stamps[SPANS][0], summary.is_irregular) == (19, False)
    assert len(runs.read("nanwatch", SPANS)) == 2


def test_a_file_deleted_since_the_last_scan_is_not_read(tmp_path):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).path
    runs = LocalRuns({str(tmp_path): None})
    runs.scan()
    path.unlink()
    assert runs.read("nanwatch", SPANS) is None


def test_a_file_that_the_writer_replaces_is_not_damaged(tmp_path, monkeypatch):
    RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9))
    rest = RunWriter(tmp_path / "nanwatch", name="events.out.tfevents.0.here.rest-000000000.v2")
    rest.message("nanwatch/0/rest", wire.encode_series(steps_of(10, 14)), step=14)
    refresh = EventFile.refresh

    def delete_and_refresh(file):
        if ".rest-" in file.path.name:
            file.path.unlink(missing_ok=True)
        refresh(file)

    monkeypatch.setattr(EventFile, "refresh", delete_and_refresh)
    (summary,) = LocalRuns({str(tmp_path): None}).scan().values()
    assert (summary.problems, summary.is_irregular, summary.stamps[SPANS][0]) == ((), False, 9)


def test_new_directories_are_found_after_some_seconds(tmp_path):
    now = [0.0]
    runs = LocalRuns({str(tmp_path): None}, clock=lambda: now[0])
    assert runs.scan() == {}
    RunWriter(tmp_path / "late" / "nanwatch").header()
    assert runs.scan() == {}
    now[0] = 6.0
    assert list(runs.scan()) == ["late/nanwatch"]


def test_directories_of_other_runs_are_ignored(tmp_path):
    RunWriter(tmp_path / "other")
    assert LocalRuns({str(tmp_path): None}).scan() == {}
