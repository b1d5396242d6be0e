"""The runs below a directory, as their files have them."""

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


def test_a_damaged_run_is_read_from_its_files_and_the_others_through_the_provider(tmp_path):
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


def test_a_run_that_gets_damaged_while_it_is_followed_is_seen_to_be(tmp_path):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).spans(steps_of(10, 19)).path
    reader = RunReader(None, files=LocalRuns({str(tmp_path): None}))
    assert reader.verdict(reader.index(EXPERIMENT), ".").status == "finite"
    flip(path, -20)
    os.utime(path, ns=(1, 1))
    assert reader.verdict(reader.index(EXPERIMENT), ".").status == "incomplete"


def test_whoever_is_writing_a_record_is_waited_for(tmp_path):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])

    def finish():
        time.sleep(0.02)
        path.write_bytes(whole)

    writer = threading.Thread(target=finish)
    writer.start()
    (found,) = LocalRuns({str(tmp_path): None}).look().values()
    writer.join()
    assert found.problems == ()


def test_nobody_waits_for_the_rest_of_an_old_file(tmp_path, monkeypatch):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).path
    path.write_bytes(path.read_bytes()[:-7])
    os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    (found,) = LocalRuns({str(tmp_path): None}).look().values()
    assert len(found.problems) == 1


def test_the_files_of_a_run_follow_one_another(tmp_path):
    RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9))
    RunWriter(tmp_path / "nanwatch", name="events.out.tfevents.1.here").spans(steps_of(10, 19))
    runs = LocalRuns({str(tmp_path): None})
    (found,) = runs.look().values()
    assert (found.stamps[SPANS][0], found.is_irregular) == (19, False)
    assert len(runs.read("nanwatch", SPANS)) == 2


def test_what_is_gone_since_the_last_look_is_not_given(tmp_path):
    path = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).path
    runs = LocalRuns({str(tmp_path): None})
    runs.look()
    path.unlink()
    assert runs.read("nanwatch", SPANS) is None


def test_a_file_that_the_writer_replaces_is_no_damage(tmp_path, monkeypatch):
    RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9))
    rest = RunWriter(tmp_path / "nanwatch", name="events.out.tfevents.0.here.rest-000000000.v2")
    rest.message("nanwatch/0/rest", wire.encode_series(steps_of(10, 14)), step=14)
    look = EventFile.look

    def look_at_what_goes(file):
        if ".rest-" in file.path.name:
            file.path.unlink(missing_ok=True)
        look(file)

    monkeypatch.setattr(EventFile, "look", look_at_what_goes)
    (found,) = LocalRuns({str(tmp_path): None}).look().values()
    assert (found.problems, found.is_irregular, found.stamps[SPANS][0]) == ((), False, 9)


def test_directories_are_walked_through_now_and_then(tmp_path):
    now = [0.0]
    runs = LocalRuns({str(tmp_path): None}, clock=lambda: now[0])
    assert runs.look() == {}
    RunWriter(tmp_path / "late" / "nanwatch").header()
    assert runs.look() == {}
    now[0] = 6.0
    assert list(runs.look()) == ["late/nanwatch"]


def test_other_directories_are_left_alone(tmp_path):
    RunWriter(tmp_path / "other")
    assert LocalRuns({str(tmp_path): None}).look() == {}
