"""Requests to TensorBoard's data provider: the list of runs, and the content of their tags.

The data server of TensorBoard needs 40 ms for any answer and refuses answers above 256 MiB. So one request reads as
many tags as surely fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeVar

from tensorboard import errors
from tensorboard.data.provider import DataProvider, RunTagFilter

from tb_nanwatch.reading.messages import Datum
from tb_nanwatch.reading.tags import Tag, parse_tag
from tb_nanwatch.schema.records import Header
from tb_nanwatch.schema.stats import BY_KEY
from tb_nanwatch.schema.wire import PLUGIN_NAME

BYTES_A_CALL: Final = 16 * 2**20
"""Bytes to read with one call. While they are decoded, the memory holds them twice."""
HEADER_BYTES: Final = 64 * 2**10
"""Expected size of a header with hundreds of variables."""
_SPANS_A_GENERATION: Final = 2048
_STEPS_IN_AN_ALERT: Final = 256
_BYTES_A_NUMBER: Final = 4
_EVERY_EVENT: Final = 2**31 - 1
"""More events than any tag has. The interface needs a number, and no event may be left out."""

Stamp = tuple[Any, Any]
_T = TypeVar("_T")


class ProviderError(Exception):
    """The data provider did not answer."""


@dataclass(frozen=True)
class Experiment:
    """An experiment of TensorBoard.

    Attributes:
        context: TensorBoard's ``RequestContext`` of the request.
        id: id of the experiment; empty for the logdir of TensorBoard.
    """

    context: Any  # TensorBoard has no types.
    id: str


@dataclass(frozen=True, eq=False)
class FilesOfRun:
    """A summary of the files of a run at one moment.

    Attributes:
        stamps: a stamp for each tag, which changes with the tag.
        problems: parts of the files that cannot be read, a sentence each.
        remarks: other remarks on the files, a sentence each.
        is_irregular: whether TensorBoard's loaders may misread the files.
    """

    stamps: Mapping[Tag, Stamp] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    is_irregular: bool = False


@dataclass(frozen=True, eq=False)
class RunIndex:
    """The readable runs and tags at one moment.

    Attributes:
        experiment: the experiment of the runs.
        names: by run, its names in TensorBoard, one per process that trained it.
        stamps: by name in TensorBoard, the last step and time of each tag, which change with the tag.
        files: by name in TensorBoard, a summary of the run's local files.
        from_files: names in TensorBoard of runs to read from files.
    """

    experiment: Experiment
    names: Mapping[str, tuple[str, ...]]
    stamps: Mapping[str, Mapping[Tag, Stamp]]
    files: Mapping[str, FilesOfRun] = field(default_factory=dict)
    from_files: frozenset[str] = frozenset()

    def tags(self, run: str) -> Mapping[Tag, Stamp]:
        """Return the stamp of each tag of a run."""
        parts = enumerate(self.names[run])
        return {
            replace(tag, worker=worker): stamp
            for worker, name in parts
            for tag, stamp in self.stamps.get(name, {}).items()
        }


class TagRequest(NamedTuple):
    """A tag to read.

    Attributes:
        run: name of the run.
        name: name of the run in TensorBoard.
        tag: the tag.
        size: its expected size, in bytes.
    """

    run: str
    name: str
    tag: Tag
    size: int


def expected_bytes(tag: Tag, header: Header | None, *, last_step: int) -> int:
    """Return the approximate size of a tag's messages, in bytes.

    Args:
        tag: a tag of spans or of an alert.
        header: header of its session; ``None`` if it could not be read.
        last_step: the last step of the tag.
    """
    if header is None:
        return HEADER_BYTES
    stats = [BY_KEY[key] for key in header.stats if key in BY_KEY]
    numbers = sum(len(stat.merges) * header.width(stat.scope) for stat in stats)
    spans = _SPANS_A_GENERATION if tag.part == "spans" else _STEPS_IN_AN_ALERT
    return _BYTES_A_NUMBER * numbers * min(spans, last_step + 1)


class TagSource:
    """Sends requests to a data provider."""

    def __init__(self, provider: DataProvider) -> None:
        """Store the data provider."""
        self._provider = provider

    def stamps(self, experiment: Experiment) -> dict[str, dict[Tag, Stamp]]:
        """Return the stamp of each tag, by the run's name in TensorBoard.

        Raises:
            ProviderError: if the data provider does not answer.
            tensorboard.errors.PublicError: if it reports an error, such as an unknown experiment.
        """
        listed = _ask(
            lambda: self._provider.list_tensors(
                experiment.context, experiment_id=experiment.id, plugin_name=PLUGIN_NAME
            )
        )
        return {run: _stamps(tags) for run, tags in listed.items()}

    def read(
        self, experiment: Experiment, requests: Iterable[TagRequest]
    ) -> Iterator[tuple[TagRequest, list[Datum] | None]]:
        """Yield the events of each tag; ``None`` if the data provider fails to return it."""
        for pack in _packs(requests):
            yield from self._read_pack(experiment, pack)

    def _read_pack(
        self, experiment: Experiment, pack: list[TagRequest]
    ) -> Iterator[tuple[TagRequest, list[Datum] | None]]:
        try:
            events = self._read_together(experiment, pack)
        except (ProviderError, errors.PublicError):
            # Read the halves alone: a bad tag must not prevent the reading of the others.
            if len(pack) == 1:
                yield pack[0], None
            else:
                for half in (pack[: len(pack) // 2], pack[len(pack) // 2 :]):
                    yield from self._read_pack(experiment, half)
            return
        for request in pack:
            data = events.get(request.name, {}).get(request.tag.name, ())
            yield request, [Datum(datum.wall_time, datum.numpy) for datum in data]

    def _read_together(self, experiment: Experiment, pack: list[TagRequest]) -> Mapping[str, Mapping[str, Any]]:
        names, tags = {request.name for request in pack}, {request.tag.name for request in pack}
        return _ask(
            lambda: self._provider.read_tensors(
                experiment.context,
                experiment_id=experiment.id,
                plugin_name=PLUGIN_NAME,
                downsample=_EVERY_EVENT,
                run_tag_filter=RunTagFilter(runs=sorted(names), tags=sorted(tags)),
            )
        )


def _packs(requests: Iterable[TagRequest]) -> Iterator[list[TagRequest]]:
    pack: list[TagRequest] = []
    size = 0
    for request in requests:
        if pack and size + request.size > BYTES_A_CALL:
            yield pack
            pack, size = [], 0
        pack.append(request)
        size += request.size
    if pack:
        yield pack


def _ask(question: Callable[[], _T]) -> _T:
    try:
        return question()
    except errors.PublicError:
        raise
    except Exception as error:  # TensorBoard accepts any data provider, which may raise anything
        raise ProviderError(f"the data provider did not answer ({type(error).__name__})") from error


def _stamps(tags: Mapping[str, Any]) -> dict[Tag, Stamp]:
    known = ((parse_tag(name), series) for name, series in tags.items())
    return {tag: (series.max_step, series.max_wall_time) for tag, series in known if tag is not None}
