"""The reader of watched runs. It uses TensorBoard's data provider, and local files that TensorBoard may misread.

The reader keeps the content of a tag until the tag changes. A finished generation of spans never changes, so each part
of a long run is read once. The content is a view of the run's log, so that the memory holds it only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from tensorboard.data.provider import DataProvider

from tb_nanwatch.diagnosis import RunLog, diagnose
from tb_nanwatch.reading.assembly import assemble
from tb_nanwatch.reading.cache import StampedCache
from tb_nanwatch.reading.local_runs import LocalRuns
from tb_nanwatch.reading.messages import Datum, TagContent, decode_tag
from tb_nanwatch.reading.sharing import as_views, bytes_of, header_of
from tb_nanwatch.reading.source import (
    HEADER_BYTES,
    Experiment,
    FilesOfRun,
    RunIndex,
    Stamp,
    TagRequest,
    TagSource,
    expected_bytes,
)
from tb_nanwatch.reading.tags import Tag, parts_of_runs
from tb_nanwatch.schema.records import Verdict, Verdicts

_LOG_BYTES: Final = 96 * 2**20
_VERDICTS: Final = 10_000
_RUNS_AT_ONCE: Final = 32

_UNEXPECTED: Final = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)

_Contents = dict[Tag, TagContent | None]


@dataclass(frozen=True, eq=False)
class _Read:
    """The result of reading a run.

    Attributes:
        stamps: stamps of the tags at the time of reading.
        contents: content of each tag; ``None`` if the data provider failed. Its spans are views of the log.
        log: log of the run.
    """

    stamps: Mapping[Tag, Stamp]
    contents: Mapping[Tag, TagContent | None]
    log: RunLog

    @property
    def is_whole(self) -> bool:
        """Whether the data provider returned every tag. If not, the next attempt may succeed."""
        return None not in self.contents.values()


class RunReader:
    """Reads and diagnoses runs. Several threads may share one object."""

    def __init__(self, provider: DataProvider | None, *, files: LocalRuns | None = None) -> None:
        """Read through a data provider, or from files.

        Args:
            provider: TensorBoard's data provider; ``None`` to read every run from its files.
            files: the local files of runs, if there are any. The reader uses them for runs that TensorBoard's loaders
                may misread.
        """
        self._source = None if provider is None else TagSource(provider)
        self._files = files
        self._reads = StampedCache[_Read](_LOG_BYTES, lambda read: 1 + bytes_of(read.log))
        self._verdicts = StampedCache[Verdict](_VERDICTS, lambda _: 1)
        # A thread that waits for the lock finds the run in the cache.
        self._reading = Lock()

    def index(self, experiment: Experiment) -> RunIndex:
        """List the runs of an experiment.

        Raises:
            ProviderError: if the data provider does not answer.
            tensorboard.errors.PublicError: if it reports an error, such as an unknown experiment.
        """
        stamps: dict[str, Mapping[Tag, Stamp]] = {}
        if self._source is not None:
            stamps |= self._source.stamps(experiment)
        files = {} if self._files is None else self._files.scan()
        from_files = frozenset(run for run in files if self._source is None or files[run].is_irregular)
        stamps |= {run: files[run].stamps for run in from_files}
        watched = {run for run, tags in stamps.items() if tags} | {run for run in files if files[run].problems}
        return RunIndex(experiment, parts_of_runs(watched), stamps, files, from_files)

    def log(self, index: RunIndex, run: str) -> RunLog:
        """Return the log of a run in the index; its problems report parts that could not be read."""
        read = self._cached(index, run)
        if read is None:
            with self._reading:
                read = self._cached(index, run) or self._read(index, [run], makes_room=True)[0]
        return read.log

    def verdict(self, index: RunIndex, run: str) -> Verdict:
        """Return the verdict on a run in the index."""
        return self.verdicts(index, run).runs[0]

    def verdicts(self, index: RunIndex, run: str | None = None) -> Verdicts:
        """Return the verdicts on all runs in the index, by name, or on a single run."""
        runs = sorted(index.names) if run is None else [run]
        verdicts = {name: self._verdicts.get(*_key(index, name)) for name in runs}
        missing = [name for name in runs if verdicts[name] is None]
        # Read the largest runs first, while the cache of logs still has room.
        missing.sort(key=lambda name: len(index.tags(name)), reverse=True)
        for start in range(0, len(missing), _RUNS_AT_ONCE):
            with self._reading:
                verdicts |= self._diagnosed(index, missing[start : start + _RUNS_AT_ONCE])
        return Verdicts(tuple(verdict for verdict in verdicts.values() if verdict is not None))

    def _diagnosed(self, index: RunIndex, runs: Iterable[str]) -> dict[str, Verdict]:
        cached = {run: self._verdicts.get(*_key(index, run)) for run in runs}
        verdicts = {run: verdict for run, verdict in cached.items() if verdict is not None}
        missing = [run for run in cached if run not in verdicts]
        for run, read in zip(missing, self._read(index, missing), strict=True):
            verdicts[run] = _verdict_on(read.log)
            if read.is_whole:
                self._verdicts.put(*_key(index, run), value=verdicts[run])
        return verdicts

    def _cached(self, index: RunIndex, run: str) -> _Read | None:
        return self._reads.get(*_key(index, run))

    def _read(self, index: RunIndex, runs: Sequence[str], *, makes_room: bool = False) -> list[_Read]:
        contents = {run: self._unchanged(index, run) for run in runs}
        headers = [(run, tag) for run in runs for tag in index.tags(run) if tag.part == "header"]
        self._fill(index, contents, [self._request(index, run, tag, size=HEADER_BYTES) for run, tag in headers])
        rest = [
            self._request(index, run, tag, size=expected_bytes(tag, header_of(tag, contents[run]), last_step=stamp[0]))
            for run in runs
            for tag, stamp in index.tags(run).items()
        ]
        self._fill(index, contents, rest)
        return [self._assembled(index, run, contents.pop(run), makes_room=makes_room) for run in runs]

    def _unchanged(self, index: RunIndex, run: str) -> _Contents:
        """Return the contents of the run's tags that have not changed since the last reading."""
        last = self._reads.newest((index.experiment.id, run))
        if last is None:
            return {}
        tags = index.tags(run)
        return {tag: content for tag, content in last.contents.items() if tags.get(tag) == last.stamps[tag]}

    def _fill(self, index: RunIndex, contents: Mapping[str, _Contents], requests: Iterable[TagRequest]) -> None:
        missing = [request for request in requests if contents[request.run].get(request.tag) is None]
        for request, data in self._data(index, missing):
            contents[request.run][request.tag] = None if data is None else decode_tag(request.tag, data)

    def _data(self, index: RunIndex, requests: Sequence[TagRequest]) -> Iterator[tuple[TagRequest, list[Datum] | None]]:
        if self._files is not None:
            for request in requests:
                if request.name in index.from_files:
                    yield request, self._files.read(request.name, request.tag)
        if self._source is not None:
            from_provider = [request for request in requests if request.name not in index.from_files]
            yield from self._source.read(index.experiment, from_provider)

    def _request(self, index: RunIndex, run: str, tag: Tag, *, size: int) -> TagRequest:
        return TagRequest(run, index.names[run][tag.worker], tag, size)

    def _assembled(self, index: RunIndex, run: str, contents: _Contents, *, makes_room: bool) -> _Read:
        known = {tag: content for tag, content in contents.items() if content is not None}
        log = assemble(run, known)
        files = _files_of(index, run)
        failed = [f"{tag.name}: it was listed, and could not be read." for tag in sorted(set(contents) - set(known))]
        problems = (*(problem for file in files for problem in file.problems), *failed, *log.problems)
        remarks = (*(remark for file in files for remark in file.remarks), *log.remarks)
        log = replace(log, problems=problems, remarks=remarks)
        read = _Read(index.tags(run), {**contents, **as_views(log, known)}, log)
        if read.is_whole:
            self._reads.put(*_key(index, run), value=read, makes_room=makes_room)
        return read


def _verdict_on(log: RunLog) -> Verdict:
    """Return the verdict on a run; an unexpected log must not prevent the verdicts on other runs."""
    try:
        return diagnose(log)
    except _UNEXPECTED as error:
        problem = f"no verdict could be drawn from the log ({type(error).__name__})."
        return diagnose(RunLog(log.run, problems=(*log.problems, problem), remarks=log.remarks))


def _files_of(index: RunIndex, run: str) -> list[FilesOfRun]:
    return [index.files[name] for name in index.names[run] if name in index.files]


def _key(index: RunIndex, run: str) -> tuple[tuple[str, str], tuple[object, ...]]:
    problems = tuple((files.problems, files.remarks) for files in _files_of(index, run))
    return (index.experiment.id, run), (frozenset(index.tags(run).items()), problems)
