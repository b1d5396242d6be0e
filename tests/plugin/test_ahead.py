"""Reading ahead reads every run once and ends by itself."""

from __future__ import annotations

import pytest
from tensorboard import errors

from tb_nanwatch.plugin import ahead
from tb_nanwatch.plugin.ahead import read_ahead
from tests.event_files import steps_of
from tests.followed_log import EXPERIMENT, FollowedLog

TIMEOUT_S = 60


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "_CHECK_INTERVAL_S", 0.0)
    followed = FollowedLog(tmp_path)
    followed.writer("early").header().spans(steps_of(0, 4))
    followed.reload()
    return followed


def read_to_the_end(log):
    thread = read_ahead(log.reader)
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def add_run(log, name):
    def add():
        log.writer(name).header().spans(steps_of(0, 4))
        log.reload()

    return add


def test_existing_runs_are_read_before_the_first_request(log):
    add_run(log, "other")()
    read_to_the_end(log)
    log.provider.asked.clear()
    verdicts = log.reader.verdicts(log.reader.index(EXPERIMENT)).runs
    assert [(verdict.run, verdict.steps_seen) for verdict in verdicts] == [("early", 5), ("other", 5)]
    assert log.provider.asked == []


def test_nothing_is_read_while_new_runs_are_found(log):
    log.provider.before_list = {2: add_run(log, "second"), 3: add_run(log, "third")}
    read_to_the_end(log)
    assert set(log.provider.lists_before_reads) == {4}
    assert {run for run, _ in log.provider.asked} == {"early/nanwatch", "second/nanwatch", "third/nanwatch"}


def test_a_growing_list_is_read_every_fifth_check(log, monkeypatch):
    monkeypatch.setattr(ahead, "_CHECKS", 13)
    log.provider.before_list = {check: add_run(log, f"run-{check}") for check in range(2, 13)}
    read_to_the_end(log)
    assert log.provider.lists == 12
    assert set(log.provider.lists_before_reads) == {5, 10}


def test_reading_ahead_ends_after_ten_checks_without_news(log):
    read_to_the_end(log)
    assert log.provider.lists == 11


def test_a_late_run_is_read_and_delays_the_end(log):
    log.provider.before_list = {9: add_run(log, "late")}
    read_to_the_end(log)
    assert log.provider.lists == 19
    assert ("late/nanwatch", "nanwatch/0/spans/0") in log.provider.asked


@pytest.mark.parametrize("error", [ConnectionError("gone"), errors.UnauthenticatedError("who?", challenge="Bearer")])
def test_reading_ahead_ends_if_the_provider_refuses(log, error):
    log.provider.failing["list"] = error
    read_to_the_end(log)
    assert (log.provider.lists, log.provider.calls) == (1, 0)
