"""Spans of a tag as views of the run's log, so that both share their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tb_nanwatch.diagnosis import RunLog, SessionLog
from tb_nanwatch.reading.messages import TagContent
from tb_nanwatch.reading.tags import Tag
from tb_nanwatch.schema.columns import PiecedColumns, stored_part
from tb_nanwatch.schema.records import Array, Header, Series, unique_arrays
from tb_nanwatch.schema.stats import BOOKKEEPING


def as_views(log: RunLog, contents: Mapping[Tag, TagContent]) -> dict[Tag, TagContent]:
    """Return the contents of a run's tags; spans that equal rows of the log become views of these rows.

    If several processes trained the run, the log holds merged spans, so the contents stay as they are.
    """
    if any(tag.worker for tag in contents):
        return dict(contents)
    sessions = {session.header.session: session for session in log.sessions}
    return {tag: _as_view(content, sessions.get(tag.session)) for tag, content in contents.items()}


def header_of(tag: Tag, contents: Mapping[Tag, TagContent | None]) -> Header | None:
    """Return the header of a tag's session and process, if it was read."""
    of_session = (
        content
        for other, content in contents.items()
        if content is not None and (other.part, other.session, other.worker) == ("header", tag.session, tag.worker)
    )
    records = (entry.record for content in of_session for entry in content.written)
    return next((record for record in records if isinstance(record, Header)), None)


def bytes_of(log: RunLog) -> int:
    """Return the memory of a log's arrays, in bytes."""
    series = [session.series for session in log.sessions]
    series += [alert.window for session in log.sessions for alert in session.alerts]
    return sum(stored_part(column).nbytes for part in series for column in _arrays(part))


def _arrays(series: Series) -> list[Array]:
    pieces = series.columns.pieces.values() if isinstance(series.columns, PiecedColumns) else ()
    return [*unique_arrays(series.columns), *(piece for column in pieces for piece in column)]


def _as_view(content: TagContent, session: SessionLog | None) -> TagContent:
    if session is None:
        return content
    written = tuple(
        replace(entry, record=_rows_of(session.series, entry.record)) if isinstance(entry.record, Series) else entry
        for entry in content.written
    )
    return replace(content, written=written)


def _rows_of(whole: Series, part: Series) -> Series:
    if not len(part):
        return part
    start = int(np.searchsorted(whole.first_step, part.first_step[0]))
    rows = whole.rows(slice(start, start + len(part)))
    is_same = np.array_equal(rows.first_step, part.first_step) and np.array_equal(rows.last_step, part.last_step)
    if not is_same or any(key not in rows.columns for key in part.columns):
        return part
    # Keep the bookkeeping of the part: it is mostly shared between variables, while that of the whole may not be.
    columns = {key: part.columns[key] if key.keeps in BOOKKEEPING else rows.columns[key] for key in part.columns}
    return Series(part.first_step, part.last_step, columns)
