"""The content of a tag becomes a view of its run's log if both are equal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog
from tb_nanwatch.numerics.spans import concatenate
from tb_nanwatch.reading.messages import TagContent, Written
from tb_nanwatch.reading.sharing import as_views, bytes_of, header_of
from tb_nanwatch.reading.tags import Tag
from tb_nanwatch.schema.columns import PiecedColumns
from tb_nanwatch.schema.records import ColumnKey, Series
from tests.event_files import HEADER, only_at, series_at, steps_of
from tests.replays import alert_of

NORM, COUNT = ColumnKey("grad_norm", "max"), ColumnKey("grad_norm", "count")
HEADER_TAG = Tag(0, "header", "nanwatch/0/header")


def spans_tag(generation, *, session=0, worker=0):
    return Tag(session, "spans", f"nanwatch/{session}/spans/{generation}", worker)


def content_of(*records):
    return TagContent(tuple(Written(float(at), record) for at, record in enumerate(records)), size=7)


def norms_of(first, last, start):
    norms = start + np.arange(4.0 * (last - first + 1)).reshape(-1, 4)
    return steps_of(first, last, grad_norm=norms)


def log_of(series, *alerts):
    return RunLog("run", (SessionLog(HEADER, series, alerts),))


def record_of(shared, tag):
    (entry,) = shared[tag].written
    return entry.record


@pytest.fixture
def parts():
    return norms_of(0, 9, 1.0), norms_of(10, 19, 100.0)


def test_spans_become_equal_views_of_the_log(parts):
    whole = concatenate(parts)
    contents = {spans_tag(at): content_of(part) for at, part in enumerate(parts)}
    shared = as_views(log_of(whole), contents)
    for at, part in enumerate(parts):
        found = record_of(shared, spans_tag(at))
        assert np.shares_memory(found.columns[NORM], whole.columns[NORM])
        np.testing.assert_array_equal(found.columns[NORM], part.columns[NORM])
        assert found.columns.keys() == part.columns.keys()
        assert found.first_step is part.first_step


def test_shared_bookkeeping_stays_with_the_tag(parts):
    bad = steps_of(10, 19, grad_norm=only_at(12, np.nan, first=10, last=19, width=4))
    whole = concatenate((parts[0], bad))
    assert whole.columns[COUNT].strides[1] != 0
    found = record_of(as_views(log_of(whole), {spans_tag(0): content_of(parts[0])}), spans_tag(0))
    assert found.columns[COUNT] is parts[0].columns[COUNT]


def test_other_facts_about_a_tag_are_kept(parts):
    content = dataclasses.replace(content_of(parts[0]), problems=("damaged.",))
    shared = as_views(log_of(parts[0]), {spans_tag(0): content, HEADER_TAG: content_of(HEADER)})
    found = shared[spans_tag(0)]
    assert (found.problems, found.size, found.written[0].wall_time) == (("damaged.",), 7, 0.0)
    assert record_of(shared, HEADER_TAG) is HEADER


@pytest.mark.parametrize("other", [norms_of(2, 11, 5.0), steps_of(20, 29)], ids=["in part", "not at all"])
def test_spans_that_the_log_holds_partly_or_not_at_all_are_unchanged(parts, other):
    log = log_of(concatenate((norms_of(0, 3, 1.0), parts[1])))
    assert record_of(as_views(log, {spans_tag(0): content_of(other)}), spans_tag(0)) is other


@pytest.mark.parametrize(("earlier", "later"), [(1, 0), (0, 1)])
def test_spans_with_other_limits_in_the_log_are_unchanged(earlier, later):
    whole = series_at([2, 5, 8], grad_norm=1.0)
    longer = Series(whole.first_step - earlier, whole.last_step + later, whole.columns)
    assert record_of(as_views(log_of(whole), {spans_tag(0): content_of(longer)}), spans_tag(0)) is longer


def test_spans_with_columns_that_the_log_lacks_are_unchanged(parts):
    whole = Series(parts[0].first_step, parts[0].last_step, {NORM: parts[0].columns[NORM]})
    assert record_of(as_views(log_of(whole), {spans_tag(0): content_of(parts[0])}), spans_tag(0)) is parts[0]


def test_spans_without_steps_are_unchanged(parts):
    empty = parts[0].rows(slice(0, 0))
    assert record_of(as_views(log_of(parts[0]), {spans_tag(0): content_of(empty)}), spans_tag(0)) is empty


def test_spans_of_a_session_outside_the_log_are_unchanged(parts):
    tag = spans_tag(0, session=3)
    assert record_of(as_views(log_of(parts[0]), {tag: content_of(parts[0])}), tag) is parts[0]


def test_spans_of_several_processes_are_unchanged(parts):
    contents = {spans_tag(0): content_of(parts[0]), spans_tag(0, worker=1): content_of(parts[0])}
    shared = as_views(log_of(norms_of(0, 9, 7.0)), contents)
    assert [record_of(shared, tag) for tag in contents] == [parts[0], parts[0]]


def test_the_header_of_a_tag_belongs_to_its_session_and_process():
    headers = {
        Tag(session, "header", f"nanwatch/{session}/header", worker): dataclasses.replace(
            HEADER, session=session, worker=worker
        )
        for session in (0, 1)
        for worker in (0, 1)
    }
    contents = {tag: content_of(header) for tag, header in headers.items()}
    assert header_of(spans_tag(2, session=1, worker=0), contents) is headers[Tag(1, "header", "nanwatch/1/header", 0)]
    assert header_of(spans_tag(2, session=0, worker=1), contents) is headers[Tag(0, "header", "nanwatch/0/header", 1)]


@pytest.mark.parametrize("contents", [{}, {HEADER_TAG: None}, {HEADER_TAG: TagContent()}])
def test_a_missing_header_is_none(contents):
    assert header_of(spans_tag(0), contents) is None


def test_the_bytes_of_a_log_count_each_array_once():
    norm = np.ones((10, 4), np.float32)
    count = np.broadcast_to(np.ones((10, 1), np.int64), (10, 4))
    columns = {NORM: norm, ColumnKey("grad_norm", "min"): norm, COUNT: count}
    series = Series(np.arange(10), np.arange(10), columns)
    norm_bytes, count_bytes = 10 * 4 * 4, 10 * 8
    assert bytes_of(log_of(series)) == norm_bytes + count_bytes
    window = alert_of(None, window=series.rows(slice(0, 5)))
    assert bytes_of(log_of(series, window)) == (norm_bytes + count_bytes) * 3 // 2


def test_the_bytes_of_columns_in_pieces_are_those_of_the_pieces():
    shared = np.broadcast_to(np.ones((6, 1), np.int64), (6, 4))
    columns = PiecedColumns({NORM: np.ones((10, 4), np.float32)}, {COUNT: [shared, np.ones((4, 4), np.int64)]})
    assert bytes_of(log_of(Series(np.arange(10), np.arange(10), columns))) == 10 * 4 * 4 + 6 * 8 + 4 * 4 * 8
