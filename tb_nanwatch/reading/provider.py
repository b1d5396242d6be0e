"""Reads watched runs through TensorBoard's own data provider, and from files what that may misread.

What was read of a tag is kept until the tag changes: a finished generation of spans never does, so a long run is read
once. It is kept as a part of the run's log, so that nothing stands in memory twice.
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
from tb_nanwatch.reading.memory import give_freed_memory_back
from tb_nanwatch.reading.messages import Datum, TagContent, decode_tag
from tb_nanwatch.reading.sharing import bytes_of, header_of, shared_with
from tb_nanwatch.reading.sizes import HEADER_BYTES, bytes_of_tag
from tb_nanwatch.reading.source import Experiment, RunIndex, Stamp, TagSource, Wanted
from tb_nanwatch.reading.tags import Tag, parts_of_runs
from tb_nanwatch.schema.records import Verdict, Verdicts

_LOG_BYTES: Final = 96 * 2**20
_VERDICTS: Final = 10_000
_RUNS_AT_ONCE: Final = 32

_UNPREPARED: Final = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)

_Contents = dict[Tag, TagContent | None]


@dataclass(frozen=True, eq=False)
class _Read:
    """What was read of a run.

    Attributes:
        stamps: of the tags, as they were then.
        contents: what each of them holds, where the data provider gave it; its spans are those of the log.
        log: of the run.
    """

    stamps: Mapping[Tag, Stamp]
    contents: Mapping[Tag, TagContent | None]
    log: RunLog

    @property
    def is_whole(self) -> bool:
        """Whether the data provider gave every tag: what it failed to give this time it may give the next."""
        return None not in self.contents.values()


class RunReader:
    """Reads and diagnoses runs; one serves every thread."""

    def __init__(self, provider: DataProvider | None, *, files: LocalRuns | None = None) -> None:
        """Read through a data provider, or from files.

        Args:
            provider: TensorBoard's; ``None`` to read every run from its files.
            files: of the runs, where they lie on this machine. A run with files that TensorBoard's loaders may misread
                is read from them.
        """
        self._source = None if provider is None else TagSource(provider)
        self._files = files
        self._reads = StampedCache[_Read](_LOG_BYTES, lambda read: 1 + bytes_of(read.log))
        self._verdicts = StampedCache[Verdict](_VERDICTS, lambda _: 1)
        # Who waits for another's reading finds it done.
        self._reading = Lock()

    def index(self, experiment: Experiment) -> RunIndex:
        """List the runs of an experiment.

        Raises:
            ProviderError: if the data provider does not answer.
            tensorboard.errors.PublicError: if it answers that it has no such experiment, or the like.
        """
        stamps: dict[str, Mapping[Tag, Stamp]] = {}
        if self._source is not None:
            stamps |= self._source.stamps(experiment)
        files = {} if self._files is None else self._files.look()
        from_files = frozenset(run for run in files if self._source is None or files[run].is_irregular)
        stamps |= {run: files[run].stamps for run in from_files}
        watched = {run for run, tags in stamps.items() if tags} | {run for run in files if files[run].problems}
        return RunIndex(experiment, parts_of_runs(watched), stamps, files, from_files)

    def log(self, index: RunIndex, run: str) -> RunLog:
        """Return what was read of a run of the index; what could not be read is named in its problems."""
        kept = self._kept(index, run)
        if kept is None:
            with self._reading:
                kept = self._kept(index, run) or self._read(index, [run], is_asked_for=True)[0]
        return kept.log

    def verdict(self, index: RunIndex, run: str) -> Verdict:
        """Return the verdict on a run of the index."""
        return self.verdicts(index, run).runs[0]

    def verdicts(self, index: RunIndex, run: str | None = None) -> Verdicts:
        """Return the verdict on every run of the index in order of their names, or on one of them alone."""
        runs = sorted(index.names) if run is None else [run]
        found = {name: self._verdicts.get(*_key(index, name)) for name in runs}
        missing = [name for name in runs if found[name] is None]
        # Those with the most to read first, while there is room to keep what was read.
        missing.sort(key=lambda name: len(index.tags(name)), reverse=True)
        for at in range(0, len(missing), _RUNS_AT_ONCE):
            with self._reading:
                found |= self._diagnosed(index, missing[at : at + _RUNS_AT_ONCE])
        return Verdicts(tuple(verdict for verdict in found.values() if verdict is not None))

    def _diagnosed(self, index: RunIndex, runs: Iterable[str]) -> dict[str, Verdict]:
        kept = {run: self._verdicts.get(*_key(index, run)) for run in runs}
        found = {run: verdict for run, verdict in kept.items() if verdict is not None}
        missing = [run for run in kept if run not in found]
        for run, read in zip(missing, self._read(index, missing), strict=True):
            found[run] = _verdict_on(read.log)
            if read.is_whole:
                self._verdicts.put(*_key(index, run), value=found[run])
        return found

    def _kept(self, index: RunIndex, run: str) -> _Read | None:
        return self._reads.get(*_key(index, run))

    def _read(self, index: RunIndex, runs: Sequence[str], *, is_asked_for: bool = False) -> list[_Read]:
        contents = {run: self._unchanged(index, run) for run in runs}
        headers = [(run, tag) for run in runs for tag in index.tags(run) if tag.part == "header"]
        self._fill(index, contents, [self._wanted(index, run, tag, size=HEADER_BYTES) for run, tag in headers])
        rest = [
            self._wanted(index, run, tag, size=bytes_of_tag(tag, header_of(tag, contents[run]), last_step=stamp[0]))
            for run in runs
            for tag, stamp in index.tags(run).items()
        ]
        self._fill(index, contents, rest)
        reads = [self._assembled(index, run, contents.pop(run), is_asked_for=is_asked_for) for run in runs]
        give_freed_memory_back()
        return reads

    def _unchanged(self, index: RunIndex, run: str) -> _Contents:
        """Return what is known of the run's tags from an earlier reading, and has not changed since."""
        last = self._reads.newest((index.experiment.id, run))
        if last is None:
            return {}
        tags = index.tags(run)
        return {tag: content for tag, content in last.contents.items() if tags.get(tag) == last.stamps[tag]}

    def _fill(self, index: RunIndex, contents: Mapping[str, _Contents], wanted: Iterable[Wanted]) -> None:
        missing = [one for one in wanted if contents[one.run].get(one.tag) is None]
        for one, data in self._data(index, missing):
            contents[one.run][one.tag] = None if data is None else decode_tag(one.tag, data)

    def _data(self, index: RunIndex, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, list[Datum] | None]]:
        if self._files is not None:
            files = self._files
            yield from ((one, files.read(one.name, one.tag)) for one in wanted if one.name in index.from_files)
        if self._source is not None:
            given = [one for one in wanted if one.name not in index.from_files]
            yield from self._source.read(index.experiment, given)

    def _wanted(self, index: RunIndex, run: str, tag: Tag, *, size: int) -> Wanted:
        return Wanted(run, index.names[run][tag.worker], tag, size)

    def _assembled(self, index: RunIndex, run: str, contents: _Contents, *, is_asked_for: bool) -> _Read:
        given = {tag: content for tag, content in contents.items() if content is not None}
        log = assemble(run, given)
        files = [index.files[name] for name in index.names[run] if name in index.files]
        silent = [f"{tag.name}: it was listed, and could not be read." for tag in sorted(set(contents) - set(given))]
        problems = (*(problem for of_part in files for problem in of_part.problems), *silent, *log.problems)
        log = replace(
            log, problems=problems, remarks=(*(r for of_part in files for r in of_part.remarks), *log.remarks)
        )
        read = _Read(index.tags(run), {**contents, **shared_with(log, given)}, log)
        if read.is_whole:
            self._reads.put(*_key(index, run), value=read, makes_room=is_asked_for)
        return read


def _verdict_on(log: RunLog) -> Verdict:
    """Return the verdict on a run; a log that no diagnosis was prepared for must not take the answer about others."""
    try:
        return diagnose(log)
    except _UNPREPARED as error:
        problem = f"no verdict could be drawn from the log ({type(error).__name__})."
        return diagnose(RunLog(log.run, problems=(*log.problems, problem), remarks=log.remarks))


def _key(index: RunIndex, run: str) -> tuple[tuple[str, str], tuple[object, ...]]:
    files = [index.files[name] for name in index.names[run] if name in index.files]
    problems = tuple((of_part.problems, of_part.remarks) for of_part in files)
    return (index.experiment.id, run), (frozenset(index.tags(run).items()), problems)
