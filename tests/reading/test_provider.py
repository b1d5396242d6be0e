"""Runs are read through a data provider: once, completely, and in spite of failing parts."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tensorboard import errors
from tensorboard.context import RequestContext

from tb_nanwatch.diagnosis import diagnose
from tb_nanwatch.reading import provider
from tb_nanwatch.reading.source import Experiment, ProviderError
from tests.event_files import only_at, steps_of
from tests.followed_log import EXPERIMENT, FollowedLog


@pytest.fixture
def log(tmp_path):
    return FollowedLog(tmp_path)


def test_an_unchanged_tag_is_not_read_again(log):
    writer = log.writer().header().spans(steps_of(0, 9)).spans(steps_of(10, 19), generation=1)
    assert log.verdict().steps_seen == 20
    log.provider.asked.clear()
    assert log.verdict().steps_seen == 20
    assert log.provider.asked == []
    writer.spans(steps_of(20, 29), generation=1)
    assert log.verdict().steps_seen == 30
    assert log.provider.asked == [("relu/nanwatch", "nanwatch/0/spans/1")]


def test_a_tag_that_cannot_be_read_is_reported_and_requested_again(log):
    log.writer().header().spans(steps_of(0, 9)).spans(steps_of(10, 19), generation=1)
    log.provider.failing["nanwatch/0/spans/1"] = ConnectionError("gone")
    verdict = log.verdict()
    assert verdict.unreadable == ("nanwatch/0/spans/1: it was listed, and could not be read.",)
    assert verdict.text == "Part of the log could not be read; the 10 steps that were read are finite."
    log.provider.failing.clear()
    assert (log.verdict().steps_seen, log.verdict().problems) == (20, ())


def test_a_problem_of_one_run_does_not_affect_another(log):
    log.writer("bad").header().message("nanwatch/0/spans/0", b"\xff", step=0)
    log.writer("good").header().spans(steps_of(0, 4))
    log.reload()
    verdicts = log.reader.verdicts(log.reader.index(EXPERIMENT)).runs
    assert [(verdict.run, verdict.status) for verdict in verdicts] == [("bad", "incomplete"), ("good", "finite")]


def test_a_failing_diagnosis_does_not_affect_another_run(log, monkeypatch):
    log.writer("bad").header().spans(steps_of(0, 9))
    log.writer("good").header().spans(steps_of(0, 4))
    log.reload()

    def diagnosed(run_log):
        return diagnose(run_log) if run_log.run == "good" or run_log.problems else 1 // 0

    monkeypatch.setattr(provider, "diagnose", diagnosed)
    bad, good = log.reader.verdicts(log.reader.index(EXPERIMENT)).runs
    assert (bad.status, bad.unreadable) == (
        "incomplete",
        ("no verdict could be drawn from the log (ZeroDivisionError).",),
    )
    assert good.status == "finite"


def test_a_provider_that_does_not_list_raises_a_provider_error(log):
    log.provider.failing["list"] = ConnectionError("gone")
    with pytest.raises(ProviderError, match=r"the data provider did not answer \(ConnectionError\)"):
        log.reader.index(EXPERIMENT)


def test_a_public_error_of_tensorboard_is_passed_on(log):
    log.provider.failing["list"] = errors.NotFoundError("no such experiment")
    with pytest.raises(errors.NotFoundError, match="no such experiment"):
        log.reader.index(EXPERIMENT)


def test_tags_of_other_plugins_are_not_read(log):
    log.writer().header().spans(steps_of(0, 4)).message("nanwatch/0/novelty", b"?", step=0)
    log.writer("stranger").message("something/else", b"?", step=0)
    assert log.verdict().problems == ()
    assert sorted(log.reader.index(EXPERIMENT).names) == ["relu"]
    assert {tag for _, tag in log.provider.asked} == {"nanwatch/0/header", "nanwatch/0/spans/0"}


def test_many_threads_get_the_same_answer(log):
    writer = log.writer().header()
    for number in range(20):
        bad = {"loss": only_at(155, math.nan, first=150, last=159)} if number == 15 else {}
        writer.spans(steps_of(number * 10, number * 10 + 9, **bad))
    log.reload()

    def verdict(_):
        return log.reader.verdict(log.reader.index(EXPERIMENT), "relu").first.step

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(verdict, range(40))) == {155}


def test_experiments_do_not_share_cached_runs(log):
    log.writer().header().spans(steps_of(0, 4))
    log.verdict()
    log.provider.asked.clear()
    other = Experiment(RequestContext(), "other")
    log.reader.verdict(log.reader.index(other), "relu")
    assert len(log.provider.asked) == 2


def test_many_runs_are_read_in_few_calls(log):
    for number in range(40):
        log.writer(f"run-{number:02}").header().spans(steps_of(0, 4))
    log.reload()
    verdicts = log.reader.verdicts(log.reader.index(EXPERIMENT)).runs
    assert [verdict.run for verdict in verdicts] == [f"run-{number:02}" for number in range(40)]
    assert {verdict.steps_seen for verdict in verdicts} == {5}
    assert log.provider.calls == 4


def test_the_content_of_a_tag_is_a_view_of_the_log(log):
    log.writer().header().spans(steps_of(0, 9)).spans(steps_of(10, 19), generation=1)
    log.reload()
    index = log.reader.index(EXPERIMENT)
    whole = log.reader.log(index, "relu").sessions[0].series.column("grad_norm", "max")
    contents = log.reader._reads.newest(("", "relu")).contents
    parts = [entry.record for tag, content in contents.items() if tag.part == "spans" for entry in content.written]
    assert [np.shares_memory(part.column("grad_norm", "max"), whole) for part in parts] == [True, True]
