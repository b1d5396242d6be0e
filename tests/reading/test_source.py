"""Asking a data provider: much at once, not too much, and one tag's trouble is not another's."""

from __future__ import annotations

import pytest
from tensorboard import errors

from tb_nanwatch.reading import source
from tb_nanwatch.reading.source import ProviderError, RunIndex, TagSource, Wanted
from tb_nanwatch.reading.tags import Tag
from tests.event_files import steps_of
from tests.followed_log import EXPERIMENT, FollowedLog

HEADER_TAG = Tag(0, "header", "nanwatch/0/header")
SPANS_TAG = Tag(0, "spans", "nanwatch/0/spans/0")


@pytest.fixture
def log(tmp_path):
    followed = FollowedLog(tmp_path)
    for run in "abcd":
        followed.writer(run).header().spans(steps_of(0, 4)).spans(steps_of(5, 9))
    followed.reload()
    return followed


def wanted(run, *, tag=SPANS_TAG, size=1):
    return Wanted(run, f"{run}/nanwatch", tag, size)


def read(log, *tags):
    """Return of each tag whose it is, and how many events it has."""
    found = TagSource(log.provider).read(EXPERIMENT, tags)
    return [(one.run, one.tag.part, None if data is None else len(data)) for one, data in found]


def test_tags_are_read_together_and_given_in_the_order_they_are_wanted(log):
    found = read(log, wanted("b"), wanted("a"), wanted("c", tag=HEADER_TAG))
    assert found == [("b", "spans", 2), ("a", "spans", 2), ("c", "header", 1)]
    assert log.provider.calls == 1


def test_no_more_is_asked_for_at_once_than_is_sure_to_fit(log, monkeypatch):
    monkeypatch.setattr(source, "BYTES_A_CALL", 10)
    assert len(read(log, wanted("a", size=4), wanted("b", size=6), wanted("c", size=5), wanted("d", size=5))) == 4
    assert {run for run, _ in log.provider.asked[:2]} == {"a/nanwatch", "b/nanwatch"}
    assert {run for run, _ in log.provider.asked[2:]} == {"c/nanwatch", "d/nanwatch"}
    assert log.provider.calls == 2


def test_a_tag_that_is_larger_than_that_is_asked_for_alone(log, monkeypatch):
    monkeypatch.setattr(source, "BYTES_A_CALL", 10)
    assert read(log, wanted("a", size=11), wanted("b", size=1)) == [("a", "spans", 2), ("b", "spans", 2)]
    assert log.provider.calls == 2


def test_nothing_wanted_is_nothing_asked(log):
    assert read(log) == []
    assert log.provider.calls == 0


@pytest.mark.parametrize("error", [ConnectionError("gone"), errors.NotFoundError("no such tag")])
def test_a_tag_that_fails_is_none_and_the_others_are_read_without_it(log, error):
    log.provider.failing[HEADER_TAG.name] = error
    found = read(log, wanted("a"), wanted("b"), wanted("c", tag=HEADER_TAG), wanted("d"))
    assert found == [("a", "spans", 2), ("b", "spans", 2), ("c", "header", None), ("d", "spans", 2)]


def test_what_is_not_there_has_no_events(log):
    gone = Tag(7, "spans", "nanwatch/7/spans/0")
    assert read(log, wanted("a", tag=gone), wanted("nobody")) == [("a", "spans", 0), ("nobody", "spans", 0)]


def test_every_event_comes_with_its_time_and_its_message(log):
    ((_, data),) = TagSource(log.provider).read(EXPERIMENT, [wanted("a")])
    assert [datum.wall_time for datum in data] == [3.0, 4.0]
    assert all(isinstance(datum.tensor.item(), bytes) for datum in data)


def test_a_tag_has_the_same_stamp_until_something_is_added(log):
    tags, writer = TagSource(log.provider), log.writer("growing").header().spans(steps_of(0, 9))
    log.reload()
    before = tags.stamps(EXPERIMENT)
    assert before["growing/nanwatch"] == {HEADER_TAG: (0, 2.0), SPANS_TAG: (9, 3.0)}
    log.reload()
    assert tags.stamps(EXPERIMENT) == before
    writer.spans(steps_of(10, 12))
    log.reload()
    assert tags.stamps(EXPERIMENT) == {**before, "growing/nanwatch": {HEADER_TAG: (0, 2.0), SPANS_TAG: (12, 4.0)}}


def test_a_providers_own_error_is_named_by_its_type_alone(log):
    log.provider.failing["list"] = ConnectionError("tcp 10.0.0.1:1234 refused")
    with pytest.raises(ProviderError, match=r"^the data provider did not answer \(ConnectionError\)$"):
        TagSource(log.provider).stamps(EXPERIMENT)


def test_the_tags_of_a_run_say_which_of_its_processes_wrote_them():
    names = {"run": ("run/nanwatch", "run/nanwatch/worker-1", "run/nanwatch/worker-2")}
    stamps = {name: {HEADER_TAG: (0, float(at))} for at, name in enumerate(names["run"][:2])}
    index = RunIndex(EXPERIMENT, names, stamps)
    assert {(tag.worker, stamp) for tag, stamp in index.tags("run").items()} == {(0, (0, 0.0)), (1, (0, 1.0))}
