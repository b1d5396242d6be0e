"""What TensorBoard's data provider is asked: which runs there are, and what their tags hold.

The data server of TensorBoard takes 40 ms for an answer however short it is, and refuses one above 256 MiB. So tags are
read together, as many as are sure to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeVar

from tensorboard import errors
from tensorboard.data.provider import DataProvider, RunTagFilter

from tb_nanwatch.reading.messages import Datum
from tb_nanwatch.reading.tags import Tag, parse_tag
from tb_nanwatch.schema.wire import PLUGIN_NAME

BYTES_A_CALL: Final = 16 * 2**20
"""What is asked for at once: no more, since it all stands in memory twice while it is taken apart."""
_EVERY_EVENT: Final = 2**31 - 1
"""More events than any tag has: the interface has no word for all of them, and none may be left out."""

Stamp = tuple[Any, Any]
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
class FilesOfRun:
    """What the files of a run hold, as they stood at one moment.

    Attributes:
        stamps: of each tag; equal for as long as the tag is.
        problems: what of the files cannot be read; a sentence each.
        remarks: what else there is to say about them; a sentence each.
        is_irregular: whether TensorBoard's loaders may make something else of the files than what they hold.
    """

    stamps: Mapping[Tag, Stamp] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    is_irregular: bool = False


@dataclass(frozen=True, eq=False)
class RunIndex:
    """What there is to read, as it stood at one moment.

    Attributes:
        experiment: whose runs these are.
        names: what each run is called, and its names in TensorBoard, one for each process that trained it.
        stamps: by name in TensorBoard, the last step and time of each tag: equal for as long as the tag is.
        files: by name in TensorBoard, what the run's files hold, where they lie on this machine.
        from_files: names in TensorBoard of the runs that are read from their files.
    """

    experiment: Experiment
    names: Mapping[str, tuple[str, ...]]
    stamps: Mapping[str, Mapping[Tag, Stamp]]
    files: Mapping[str, FilesOfRun] = field(default_factory=dict)
    from_files: frozenset[str] = frozenset()

    def tags(self, run: str) -> Mapping[Tag, Stamp]:
        """Return the tags of a run, and the stamp of each."""
        parts = enumerate(self.names[run])
        return {
            replace(tag, worker=worker): stamp
            for worker, name in parts
            for tag, stamp in self.stamps.get(name, {}).items()
        }


class Wanted(NamedTuple):
    """A tag that is to be read.

    Attributes:
        run: what the run is called.
        name: of the run in TensorBoard.
        tag: of the run.
        size: in bytes, about; what it will not be above.
    """

    run: str
    name: str
    tag: Tag
    size: int


class TagSource:
    """Asks a data provider."""

    def __init__(self, provider: DataProvider) -> None:
        """Ask ``provider``."""
        self._provider = provider

    def stamps(self, experiment: Experiment) -> dict[str, dict[Tag, Stamp]]:
        """Return the tags of every run, by its name in TensorBoard, and the stamp of each.

        Raises:
            ProviderError: if the data provider does not answer.
            tensorboard.errors.PublicError: if it answers that it has no such experiment, or the like.
        """
        listed = _ask(
            lambda: self._provider.list_tensors(
                experiment.context, experiment_id=experiment.id, plugin_name=PLUGIN_NAME
            )
        )
        return {run: _stamps(tags) for run, tags in listed.items()}

    def read(self, experiment: Experiment, wanted: Iterable[Wanted]) -> Iterator[tuple[Wanted, list[Datum] | None]]:
        """Yield the events of each tag; ``None`` where the data provider did not give it."""
        for pack in _packs(wanted):
            yield from self._read_pack(experiment, pack)

    def _read_pack(self, experiment: Experiment, pack: list[Wanted]) -> Iterator[tuple[Wanted, list[Datum] | None]]:
        try:
            read = self._read_together(experiment, pack)
        except (ProviderError, errors.PublicError):
            # One tag's trouble is not another's.
            if len(pack) == 1:
                yield pack[0], None
            else:
                for half in (pack[: len(pack) // 2], pack[len(pack) // 2 :]):
                    yield from self._read_pack(experiment, half)
            return
        for one in pack:
            found = read.get(one.name, {}).get(one.tag.name, ())
            yield one, [Datum(datum.wall_time, datum.numpy) for datum in found]

    def _read_together(self, experiment: Experiment, pack: list[Wanted]) -> Mapping[str, Mapping[str, Any]]:
        names, tags = {one.name for one in pack}, {one.tag.name for one in pack}
        return _ask(
            lambda: self._provider.read_tensors(
                experiment.context,
                experiment_id=experiment.id,
                plugin_name=PLUGIN_NAME,
                downsample=_EVERY_EVENT,
                run_tag_filter=RunTagFilter(runs=sorted(names), tags=sorted(tags)),
            )
        )


def _packs(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    pack: list[Wanted] = []
    size = 0
    for one in wanted:
        if pack and size + one.size > BYTES_A_CALL:
            yield pack
            pack, size = [], 0
        pack.append(one)
        size += one.size
    if pack:
        yield pack


def _ask(question: Callable[[], _T]) -> _T:
    try:
        return question()
    except errors.PublicError:
        raise
    except Exception as error:  # a data provider may be anybody's, and raise anything
        raise ProviderError(f"the data provider did not answer ({type(error).__name__})") from error


def _stamps(tags: Mapping[str, Any]) -> dict[Tag, Stamp]:
    known = ((parse_tag(name), series) for name, series in tags.items())
    return {tag: (series.max_step, series.max_wall_time) for tag, series in known if tag is not None}
