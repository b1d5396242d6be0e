"""The names under which a watched run is found: TensorBoard's runs, and the tags in each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

Part = Literal["header", "spans", "rest", "alerts"]

_DIRECTORY: Final = "nanwatch"
_OF_WORKER: Final = re.compile(r"((?:|.*[/\\])nanwatch)[/\\]worker-(\d{1,9})", re.ASCII | re.DOTALL)
_TAG: Final = re.compile(
    r"nanwatch/(?P<session>\d{1,9})/"
    r"(?:(?P<header>header)|(?P<spans>spans/\d{1,9})|(?P<rest>rest)|(?P<alerts>alerts/-?\d{1,19}-\d{1,9}))",
    re.ASCII,
)


@dataclass(frozen=True, order=True)
class Tag:
    """One tag of a session: its header, the spans of a generation, the span that is not full, or an alert.

    Attributes:
        session: its number.
        part: what the tag holds.
        name: in TensorBoard.
        worker: which of the run's processes wrote it, in the order of :func:`parts_of_runs`.
    """

    session: int
    part: Part
    name: str
    worker: int = 0


def parse_tag(name: str) -> Tag | None:
    """Read a tag's name; ``None`` for one that a newer version may have added.

    Example:
        >>> parse_tag("nanwatch/0/spans/3")
        Tag(session=0, part='spans', name='nanwatch/0/spans/3', worker=0)
    """
    match = _TAG.fullmatch(name)
    if match is None:
        return None
    part = next(part for part in get_args(Part) if match[part])
    return Tag(int(match["session"]), cast("Part", part), name)


def shown_runs(names: Iterable[str]) -> dict[str, str]:
    """Map what a run is called to the name it has in TensorBoard.

    A watched run is written to a directory of its own, ``SOMERUN/nanwatch``, and is called ``SOMERUN``; it is
    ``.`` where that directory is the logdir itself or stands right in it. Should two runs come to one name,
    the second keeps its own.

    Example:
        >>> shown_runs(["relu/nanwatch", "nanwatch"])
        {'.': 'nanwatch', 'relu': 'relu/nanwatch'}
    """
    shown: dict[str, str] = {}
    for name in sorted(names):
        called = _called(name)
        shown[name if called in shown else called] = name
    return shown


def parts_of_runs(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map what a run is called to its names in TensorBoard, one for each of the processes that trained it.

    The first process writes to ``SOMERUN/nanwatch``, the others to ``SOMERUN/nanwatch/worker-1`` and so on.

    Example:
        >>> parts_of_runs(["relu/nanwatch", "relu/nanwatch/worker-1", "nanwatch"])
        {'.': ('nanwatch',), 'relu': ('relu/nanwatch', 'relu/nanwatch/worker-1')}
    """
    parts: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (_first_part(name), _worker(name))):
        parts.setdefault(_first_part(name), []).append(name)
    return {called: tuple(parts[first]) for called, first in shown_runs(parts).items()}


def is_run_directory(path: str) -> bool:
    """Whether a directory, given by its path, is one that a watch writes to."""
    return _called(_first_part(path)) != _first_part(path)


def home_of(path: str) -> str:
    """Return the directory in which a run's other files lie, given its own or one that holds it.

    Example:
        >>> home_of("logs/critic/nanwatch"), home_of("nanwatch/"), home_of("logs/critic")
        ('logs/critic', '.', 'logs/critic')
    """
    bare = path.rstrip("/\\")
    return _called(_first_part(bare)) if is_run_directory(bare) else path


def _first_part(name: str) -> str:
    match = _OF_WORKER.fullmatch(name)
    return match[1] if match else name


def _worker(name: str) -> int:
    match = _OF_WORKER.fullmatch(name)
    return int(match[2]) if match else 0


def _called(name: str) -> str:
    parts = re.split(r"[/\\]", name)
    if parts[-1] != _DIRECTORY:
        return name
    return name[: -len(_DIRECTORY) - 1] or "."
