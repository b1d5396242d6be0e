"""The assembly of a run's log from the records of its tags: the chunks of each session become one series.

A log may come from anywhere, so this module checks everything that a diagnosis relies on. Columns are complete and as
wide as the header says, spans do not overlap, and step numbers are in range.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import numpy as np

from tb_nanwatch.diagnosis import RunLog, SessionLog
from tb_nanwatch.errors import RecordError
from tb_nanwatch.reading.completion import is_below, join_messages
from tb_nanwatch.reading.derived import with_derived
from tb_nanwatch.reading.messages import TagContent, Written
from tb_nanwatch.reading.tags import Tag
from tb_nanwatch.reading.workers import merge_workers
from tb_nanwatch.schema.columns import PiecedColumns, concatenate_columns, is_shared
from tb_nanwatch.schema.records import STEPS_BELOW, Alert, Array, ColumnKey, Header, Series
from tb_nanwatch.schema.stats import BOOKKEEPING, BY_KEY

_MOST_PROBLEMS: Final = 20
_R = TypeVar("_R")


def assemble(run: str, contents: Mapping[Tag, TagContent]) -> RunLog:
    """Assemble the log of a run.

    Args:
        run: name of the run.
        contents: the content of each tag.

    Returns:
        A log with sessions in order. Its ``problems`` name every part that could not be read; all other parts are kept.
    """
    problems = [problem for tag in sorted(contents) for problem in contents[tag].problems]
    by_session: dict[int, dict[int, list[TagContent]]] = {}
    for tag in sorted(contents):
        by_session.setdefault(tag.session, {}).setdefault(tag.worker, []).append(contents[tag])
    sessions = [
        [
            _SessionReader.of(number, of_worker, problems).session()
            for of_worker in by_worker.values()
            if not any(content.is_too_new for content in of_worker)
        ]
        for number, by_worker in by_session.items()
    ]
    merged = tuple(merge_workers(workers, problems) for workers in sessions if workers)
    remarks = [remark for tag in sorted(contents) for remark in contents[tag].remarks]
    return RunLog(run, merged, _shortlist(problems), _shortlist(remarks))


@dataclasses.dataclass(frozen=True, eq=False)
class _SessionReader:
    header: Header
    has_header: bool
    written: Sequence[Written]
    problems: list[str]

    @classmethod
    def of(cls, number: int, contents: Iterable[TagContent], problems: list[str]) -> _SessionReader:
        written = [entry for content in contents for entry in content.written]
        written.sort(key=lambda entry: entry.wall_time)
        headers = _of_type(Header, written)
        if not headers:
            problems.append(f"session {number} has no header that can be read: its variables have no names.")
        header = headers[-1] if headers else Header(session=number, variables=())
        return cls(header, has_header=bool(headers), written=written, problems=problems)

    def session(self) -> SessionLog:
        alerts = sorted(self._alerts(), key=lambda alert: alert.step)
        chunks = _without_overlap(self._chunks())
        series = self._joined([*chunks, *_missing_steps(chunks, alerts)])
        bad = tuple(alert for alert in alerts if alert.findings)
        return SessionLog(self.header, series, bad, tuple(alert for alert in alerts if alert.error))

    def _alerts(self) -> Iterable[Alert]:
        return join_messages(self._readable_alerts())

    def _readable_alerts(self) -> Iterable[Alert]:
        for alert in _of_type(Alert, self.written):
            with self._reporting(f"the alert of step {alert.step}"):
                _check_steps(alert.step, alert.first_step)
                yield dataclasses.replace(alert, window=self._checked(alert.window), batch=self._batch(alert))

    def _batch(self, alert: Alert) -> str | None:
        if alert.batch is None or is_below(alert.batch):
            return alert.batch
        self._report(f"the alert of step {alert.step}: its batch must lie below the run's directory, and does not")
        return None

    def _chunks(self) -> Iterable[Series]:
        for chunk in _of_type(Series, self.written):
            with self._reporting(_phrase(chunk)):
                yield self._checked(chunk)

    def _checked(self, series: Series) -> Series:
        """Return the series with complete statistics that fit the header, and with derived columns."""
        _check_steps(*series.first_step[:1].tolist(), *series.last_step[-1:].tolist())
        columns = {key: column for key, column in series.columns.items() if self._is_known(key, column)}
        stats = {key.stat for key in columns}
        partial = {stat for stat in stats for keeps in BY_KEY[stat].merges if (stat, keeps) not in columns}
        complete = {key: column for key, column in columns.items() if key.stat not in partial}
        return with_derived(Series(series.first_step, series.last_step, complete), self.header)

    def _is_known(self, key: ColumnKey, column: Array) -> bool:
        if key.stat not in BY_KEY:
            return False
        width = self.header.width(BY_KEY[key.stat].scope)
        if self.has_header and column.shape[1] != width:
            raise RecordError(f"{key.stat} must be as wide as the header says, {width}; got {column.shape[1]}")
        return bool(column.shape[1] == width)

    def _joined(self, parts: Sequence[Series]) -> Series:
        keys = parts[0].columns.keys() if parts else set[ColumnKey]()
        for part in parts:
            if part.columns.keys() != keys:
                self._report(f"{_phrase(part)}: it must have the columns of the first chunk, and has others")
        return _concatenated([part for part in parts if part.columns.keys() == keys])

    @contextmanager
    def _reporting(self, part: str) -> Iterator[None]:
        try:
            yield
        except RecordError as error:
            self._report(f"{part}: {error}")

    def _report(self, problem: str) -> None:
        self.problems.append(f"session {self.header.session}, {problem}.")


def _check_steps(*steps: int) -> None:
    if any(not 0 <= step < STEPS_BELOW for step in steps):
        raise RecordError(f"steps must be from 0 to {STEPS_BELOW - 1}; got {min(steps)} to {max(steps)}")


def _without_overlap(chunks: Iterable[Series]) -> list[Series]:
    """Return the chunks in order of steps; a chunk that was written later replaces the steps of an earlier one."""
    begins: list[int] = []
    ends: list[int] = []
    kept: list[Series] = []
    for chunk in reversed([chunk for chunk in chunks if len(chunk)]):
        # The parts in ``kept`` are in order and disjoint, so only few of them can overlap a chunk.
        near = slice(bisect.bisect_left(ends, chunk.first_step[0]), bisect.bisect_right(begins, chunk.last_step[-1]))
        for part in _outside(chunk, begins[near], ends[near]):
            place = bisect.bisect(begins, int(part.first_step[0]))
            begins.insert(place, int(part.first_step[0]))
            ends.insert(place, int(part.last_step[-1]))
            kept.insert(place, part)
    return kept


def _outside(chunk: Series, begins: Sequence[int], ends: Sequence[int]) -> list[Series]:
    """Return the spans of a chunk that overlap no other part, cut wherever another part lies between them."""
    if not begins:
        return [chunk]
    # For each span, the number of parts that end before it, and the number that begin before its end.
    ended = np.searchsorted(np.array(ends, np.int64), chunk.first_step)
    begun = np.searchsorted(np.array(begins, np.int64), chunk.last_step, side="right")
    free = np.flatnonzero(ended == begun)
    cuts = np.flatnonzero((np.diff(free) > 1) | (np.diff(ended[free]) > 0)) + 1
    return [chunk.rows(slice(int(rows[0]), int(rows[-1]) + 1)) for rows in np.split(free, cuts) if len(rows)]


def _missing_steps(chunks: Sequence[Series], alerts: Iterable[Alert]) -> Iterable[Series]:
    """Yield last steps that only an alert holds: a killed process may lose its last chunk."""
    last = int(chunks[-1].last_step[-1]) if chunks else -1
    for alert in alerts:
        rows = np.flatnonzero(alert.window.first_step > last)
        if len(rows):
            yield alert.window.rows(rows)
            last = int(alert.window.last_step[-1])


def _concatenated(parts: Sequence[Series]) -> Series:
    first = np.concatenate([np.zeros(0, np.int64), *(part.first_step for part in parts)])
    last = np.concatenate([np.zeros(0, np.int64), *(part.last_step for part in parts)])
    pieces = {key: [part.columns[key] for part in parts] for key in (parts[0].columns if parts else ())}
    split = {key for key in pieces if key.keeps in BOOKKEEPING and len({*map(is_shared, pieces[key])}) > 1}
    whole = {key: concatenate_columns(pieces[key]) for key in pieces if key not in split}
    return Series(first, last, PiecedColumns(whole, {key: pieces[key] for key in split}) if split else whole)


def _phrase(chunk: Series) -> str:
    steps = f"{chunk.first_step[0]} to {chunk.last_step[-1]}" if len(chunk) else "none"
    return f"the chunk of steps {steps}"


def _of_type(kind: type[_R], written: Iterable[Written]) -> list[_R]:
    return [entry.record for entry in written if isinstance(entry.record, kind)]


def _shortlist(problems: Sequence[str]) -> tuple[str, ...]:
    if len(problems) <= _MOST_PROBLEMS:
        return tuple(problems)
    return (*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS:,} more.")
