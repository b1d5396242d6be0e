"""Reads watched runs through TensorBoard's own data provider, whatever stands behind it.

Each tag is read by itself, since the data server refuses a reply above 256 MiB, and is kept until it changes:
    a finished generation of spans never does, so a long run is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from tensorboard import errors
from tensorboard.data.provider import DataProvider, RunTagFilter

from tb_nanwatch.diagnosis import RunLog, diagnose
from tb_nanwatch.reading.assembly import assemble
from tb_nanwatch.reading.cache import StampedCache
from tb_nanwatch.reading.messages import Datum, TagContent, decode_tag
from tb_nanwatch.reading.tags import Tag, parse_tag, parts_of_runs
from tb_nanwatch.schema.records import Verdict, Verdicts
from tb_nanwatch.schema.wire import PLUGIN_NAME

_EVERY_EVENT: Final = 2**31 - 1
"""More events than any tag has: the interface has no word for all of them, and none may be left out."""
_TAG_BYTES: Final = 256 * 2**20
_LOG_BYTES: Final = 256 * 2**20
_VERDICTS: Final = 10_000

_Stamp = tuple[object, object]
_T = TypeVar("_T")


class ProviderError(Exception):
    """A data provider did not answer."""


@dataclass(frozen=True)
class Experiment:
    """Whose runs are asked for.

    Attributes:
        context: TensorBoard's ``RequestContext`` of the request.
        id: the experiment's; empty for the logdir that TensorBoard was started with.
    """

    context: Any  # TensorBoard has no types.
    id: str


@dataclass(frozen=True, eq=False)
class RunIndex:
    """What there is to read, as it stood at one moment.

    Attributes:
        experiment: whose runs these are.
        names: what each run is called, and its names in TensorBoard, one for each process that trained it.
        stamps: by name in TensorBoard, the last step and time of each tag: equal for as long as the tag is.
    """

    experiment: Experiment
    names: Mapping[str, tuple[str, ...]]
    stamps: Mapping[str, Mapping[Tag, _Stamp]]

    def tags(self, run: str) -> Mapping[Tag, _Stamp]:
        """Return the tags of a run, and the stamp of each."""
        parts = enumerate(self.names[run])
        return {
            replace(tag, worker=worker): stamp
            for worker, name in parts
            for tag, stamp in self.stamps.get(name, {}).items()
        }


class RunReader:
    """Reads and diagnoses runs; one serves every thread."""

    def __init__(self, provider: DataProvider, *, known_problems: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """Read through a data provider.

        Args:
            provider: TensorBoard's.
            known_problems: by name in TensorBoard, what is known besides to be wrong with a run's files.
        """
        self._provider = provider
        self._known_problems = known_problems or {}
        self._contents = StampedCache[TagContent](_TAG_BYTES, lambda content: content.size + 1)
        self._logs = StampedCache[RunLog](_LOG_BYTES, _bytes_of)
        self._verdicts = StampedCache[Verdict](_VERDICTS, lambda _: 1)

    def index(self, experiment: Experiment) -> RunIndex:
        """List the runs of an experiment.

        Raises:
            ProviderError: if the data provider does not answer.
            tensorboard.errors.PublicError: if it answers that it has no such experiment, or the like.
        """
        listed = _ask(
            lambda: self._provider.list_tensors(
                experiment.context, experiment_id=experiment.id, plugin_name=PLUGIN_NAME
            )
        )
        stamps = {run: _stamps(tags) for run, tags in listed.items()}
        watched = {run for run, tags in stamps.items() if tags}
        return RunIndex(experiment, parts_of_runs(watched | set(self._known_problems)), stamps)

    def log(self, index: RunIndex, run: str) -> RunLog:
        """Return what was read of a run of the index; what could not be read is named in its problems."""
        return self._log(index, run)[0]

    def verdict(self, index: RunIndex, run: str) -> Verdict:
        """Return the verdict on a run of the index."""
        key, stamp = (index.experiment.id, run), frozenset(index.tags(run).items())
        verdict = self._verdicts.get(key, stamp)
        if verdict is None:
            log, is_whole = self._log(index, run)
            verdict = diagnose(log)
            # What the provider failed to give this time it may give the next.
            if is_whole:
                self._verdicts.put(key, stamp, value=verdict)
        return verdict

    def verdicts(self, index: RunIndex, run: str | None = None) -> Verdicts:
        """Return the verdict on every run of the index in order of their names, or on one of them alone."""
        runs = sorted(index.names) if run is None else [run]
        return Verdicts(tuple(self.verdict(index, name) for name in runs))

    def _log(self, index: RunIndex, run: str) -> tuple[RunLog, bool]:
        key, stamp = (index.experiment.id, run), frozenset(index.tags(run).items())
        kept = self._logs.get(key, stamp)
        if kept is not None:
            return kept, True
        contents = {tag: self._content(index, run, tag) for tag in index.tags(run)}
        given = {tag: content for tag, content in contents.items() if content is not None}
        log = _with_problems(assemble(run, given), self._problems(index, run, set(contents) - set(given)))
        if len(given) == len(contents):
            self._logs.put(key, stamp, value=log)
        return log, len(given) == len(contents)

    def _content(self, index: RunIndex, run: str, tag: Tag) -> TagContent | None:
        key, stamp = (index.experiment.id, run, tag), index.tags(run)[tag]
        content = self._contents.get(key, stamp)
        if content is None:
            try:
                content = decode_tag(tag, self._data(index, run, tag))
            except (ProviderError, errors.PublicError):
                return None
            self._contents.put(key, stamp, value=content)
        return content

    def _data(self, index: RunIndex, run: str, tag: Tag) -> list[Datum]:
        experiment, name = index.experiment, index.names[run][tag.worker]
        read = _ask(
            lambda: self._provider.read_tensors(
                experiment.context,
                experiment_id=experiment.id,
                plugin_name=PLUGIN_NAME,
                downsample=_EVERY_EVENT,
                run_tag_filter=RunTagFilter(runs=[name], tags=[tag.name]),
            )
        )
        return [Datum(datum.wall_time, datum.numpy) for datum in read.get(name, {}).get(tag.name, ())]

    def _problems(self, index: RunIndex, run: str, missing: set[Tag]) -> tuple[str, ...]:
        silent = tuple(f"{tag.name}: the data provider did not give it." for tag in sorted(missing))
        known = (problem for name in index.names[run] for problem in self._known_problems.get(name, ()))
        return (*known, *silent)


def _ask(question: Callable[[], _T]) -> _T:
    try:
        return question()
    except errors.PublicError:
        raise
    except Exception as error:  # a data provider may be anybody's, and raise anything
        raise ProviderError(f"the data provider did not answer ({type(error).__name__})") from error


def _stamps(tags: Mapping[str, Any]) -> dict[Tag, _Stamp]:
    known = ((parse_tag(name), series) for name, series in tags.items())
    return {tag: (series.max_step, series.max_wall_time) for tag, series in known if tag is not None}


def _with_problems(log: RunLog, problems: tuple[str, ...]) -> RunLog:
    return replace(log, problems=(*problems, *log.problems)) if problems else log


def _bytes_of(log: RunLog) -> int:
    series = [session.series for session in log.sessions]
    series += [alert.window for session in log.sessions for alert in session.alerts]
    # A column of defaults is one value a span, however many variables it stands for.
    columns = [
        column[:, :1] if column.strides[1] == 0 else column for part in series for column in part.columns.values()
    ]
    return 1 + sum(column.nbytes for column in columns)
