"""Requests to a data provider are bundled, and a failing tag does not affect others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tensorboard import errors

from tb_nanwatch.reading import source
from tb_nanwatch.reading.source import HEADER_BYTES, ProviderError, RunIndex, TagRequest, TagSource, expected_bytes
from tb_nanwatch.reading.tags import Tag
from tb_nanwatch.schema import wire
from tests.event_files import HEADER, steps_of
from tests.followed_log import EXPERIMENT, FollowedLog

HEADER_TAG = Tag(0, "header", "nanwatch/0/header")
SPANS_TAG = Tag(0, "spans", "nanwatch/0/spans/0")
ALERT_TAG = Tag(0, "alerts", "nanwatch/0/alerts/9-0")
# Per step, each of the 4 variables has 3 + 1 numbers. The loss, the global norm and the tensor have 3 each.
BYTES_A_STEP = 4 * (4 * (3 + 1) + 3 + 3 + 3)


@pytest.fixture
def log(tmp_path):
    followed = FollowedLog(tmp_path)
    for run in "abcd":
        followed.writer(run).header().spans(steps_of(0, 4)).spans(steps_of(5, 9))
    followed.reload()
    return followed


def request_for(run, *, tag=SPANS_TAG, size=1):
    return TagRequest(run, f"{run}/nanwatch", tag, size)


def read(log, *tags):
    """Return the run, the part and the number of events of each tag."""
    events = TagSource(log.provider).read(EXPERIMENT, tags)
    return [(request.run, request.tag.part, None if data is None else len(data)) for request, data in events]


def test_tags_are_read_together_and_returned_in_order(log):
    found = read(log, request_for("b"), request_for("a"), request_for("c", tag=HEADER_TAG))
    assert found == [("b", "spans", 2), ("a", "spans", 2), ("c", "header", 1)]
    assert log.provider.calls == 1


def test_a_call_requests_no_more_than_fits(log, monkeypatch):
    monkeypatch.setattr(source, "BYTES_A_CALL", 10)
    assert (
        len(
            read(
                log,
                request_for("a", size=4),
                request_for("b", size=6),
                request_for("c", size=5),
                request_for("d", size=5),
            )
        )
        == 4
    )
    assert {run for run, _ in log.provider.asked[:2]} == {"a/nanwatch", "b/nanwatch"}
    assert {run for run, _ in log.provider.asked[2:]} == {"c/nanwatch", "d/nanwatch"}
    assert log.provider.calls == 2


def test_a_tag_above_the_limit_is_requested_alone(log, monkeypatch):
    monkeypatch.setattr(source, "BYTES_A_CALL", 10)
    assert read(log, request_for("a", size=11), request_for("b", size=1)) == [("a", "spans", 2), ("b", "spans", 2)]
    assert log.provider.calls == 2


def test_no_requests_make_no_call(log):
    assert read(log) == []
    assert log.provider.calls == 0


@pytest.mark.parametrize("error", [ConnectionError("gone"), errors.NotFoundError("no such tag")])
def test_a_tag_that_fails_is_none_and_the_others_are_read(log, error):
    log.provider.failing[HEADER_TAG.name] = error
    found = read(log, request_for("a"), request_for("b"), request_for("c", tag=HEADER_TAG), request_for("d"))
    assert found == [("a", "spans", 2), ("b", "spans", 2), ("c", "header", None), ("d", "spans", 2)]


def test_a_missing_tag_has_no_events(log):
    gone = Tag(7, "spans", "nanwatch/7/spans/0")
    assert read(log, request_for("a", tag=gone), request_for("missing")) == [("a", "spans", 0), ("missing", "spans", 0)]


def test_every_event_has_its_time_and_message(log):
    ((_, data),) = TagSource(log.provider).read(EXPERIMENT, [request_for("a")])
    assert [datum.wall_time for datum in data] == [3.0, 4.0]
    assert all(isinstance(datum.tensor.item(), bytes) for datum in data)


def test_the_stamp_of_a_tag_changes_only_with_the_tag(log):
    tags, writer = TagSource(log.provider), log.writer("growing").header().spans(steps_of(0, 9))
    log.reload()
    before = tags.stamps(EXPERIMENT)
    assert before["growing/nanwatch"] == {HEADER_TAG: (0, 2.0), SPANS_TAG: (9, 3.0)}
    log.reload()
    assert tags.stamps(EXPERIMENT) == before
    writer.spans(steps_of(10, 12))
    log.reload()
    assert tags.stamps(EXPERIMENT) == {**before, "growing/nanwatch": {HEADER_TAG: (0, 2.0), SPANS_TAG: (12, 4.0)}}


def test_an_error_of_the_provider_is_reported_by_its_type_only(log):
    log.provider.failing["list"] = ConnectionError("tcp 10.0.0.1:1234 refused")
    with pytest.raises(ProviderError, match=r"^the data provider did not answer \(ConnectionError\)$"):
        TagSource(log.provider).stamps(EXPERIMENT)


def test_the_tags_of_a_run_have_the_number_of_their_process():
    names = {"run": ("run/nanwatch", "run/nanwatch/worker-1", "run/nanwatch/worker-2")}
    stamps = {name: {HEADER_TAG: (0, float(at))} for at, name in enumerate(names["run"][:2])}
    index = RunIndex(EXPERIMENT, names, stamps)
    assert {(tag.worker, stamp) for tag, stamp in index.tags("run").items()} == {(0, (0, 0.0)), (1, (0, 1.0))}


@pytest.mark.parametrize(("last_step", "spans"), [(0, 1), (9, 10), (2047, 2048), (2048, 2048), (10_000_000, 2048)])
def test_a_generation_is_expected_to_hold_at_most_2048_spans(last_step, spans):
    assert expected_bytes(SPANS_TAG, HEADER, last_step=last_step) == spans * BYTES_A_STEP


@pytest.mark.parametrize(("last_step", "steps"), [(9, 10), (255, 256), (10_000_000, 256)])
def test_an_alert_is_expected_to_hold_at_most_256_steps(last_step, steps):
    assert expected_bytes(ALERT_TAG, HEADER, last_step=last_step) == steps * BYTES_A_STEP


def test_a_tag_without_a_header_is_expected_to_be_as_large_as_a_header():
    assert expected_bytes(SPANS_TAG, None, last_step=10_000_000) == HEADER_BYTES


def test_an_unknown_statistic_does_not_count():
    header = dataclasses.replace(HEADER, stats=(*HEADER.stats, "novelty"))
    assert expected_bytes(SPANS_TAG, header, last_step=9) == 10 * BYTES_A_STEP


def test_the_spans_of_a_finite_run_have_about_the_expected_size():
    draw = np.random.default_rng(0)
    norms = {stat: draw.random((2048, 4)) for stat in ("grad_norm", "weight_norm")}
    steps = {stat: draw.random(2048) for stat in ("loss", "global_norm", "tensor_norm")}
    written = len(wire.encode_series(steps_of(0, 2047, **norms, **steps)))
    assert 0.9 < written / expected_bytes(SPANS_TAG, HEADER, last_step=2047) < 1.1
