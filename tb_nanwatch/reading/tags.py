"""The names of watched runs and of their tags in TensorBoard."""

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
    """One tag of a session: its header, the spans of a generation, the incomplete span (``rest``), or an alert.

    Attributes:
        session: number of the session.
        part: the kind of content.
        name: name of the tag in TensorBoard.
        worker: number of the process that wrote it, in the order of :func:`parts_of_runs`.
    """

    session: int
    part: Part
    name: str
    worker: int = 0


def parse_tag(name: str) -> Tag | None:
    """Parse the name of a tag; return ``None`` for an unknown name, which a newer version may have added.

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
    """Map the shown name of each run to its name in TensorBoard.

    A watch writes to a directory of its own, ``SOMERUN/nanwatch``, and the run is shown as ``SOMERUN``. It is shown as
    ``.`` if that directory is the logdir or lies directly in it. If two runs would have the same shown name, the second
    keeps its name in TensorBoard.

    Example:
        >>> shown_runs(["relu/nanwatch", "nanwatch"])
        {'.': 'nanwatch', 'relu': 'relu/nanwatch'}
    """
    shown: dict[str, str] = {}
    for name in sorted(names):
        short = _shown_name(name)
        shown[name if short in shown else short] = name
    return shown


def parts_of_runs(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map the shown name of each run to its names in TensorBoard, one per process that trained it.

    The first process writes to ``SOMERUN/nanwatch``, the second to ``SOMERUN/nanwatch/worker-1``, and so on.

    Example:
        >>> parts_of_runs(["relu/nanwatch", "relu/nanwatch/worker-1", "nanwatch"])
        {'.': ('nanwatch',), 'relu': ('relu/nanwatch', 'relu/nanwatch/worker-1')}
    """
    parts: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (_first_part(name), _worker(name))):
        parts.setdefault(_first_part(name), []).append(name)
    return {shown: tuple(parts[first]) for shown, first in shown_runs(parts).items()}


def is_run_directory(path: str) -> bool:
    """Return whether a watch writes to the directory with this path."""
    return _shown_name(_first_part(path)) != _first_part(path)


def home_of(path: str) -> str:
    """Return the directory with a run's other files, given the directory of its events or a directory above.

    Example:
        >>> home_of("logs/critic/nanwatch"), home_of("nanwatch/"), home_of("logs/critic")
        ('logs/critic', '.', 'logs/critic')
    """
    bare = path.rstrip("/\\")
    return _shown_name(_first_part(bare)) if is_run_directory(bare) else path


def _first_part(name: str) -> str:
    match = _OF_WORKER.fullmatch(name)
    return match[1] if match else name


def _worker(name: str) -> int:
    match = _OF_WORKER.fullmatch(name)
    return int(match[2]) if match else 0


def _shown_name(name: str) -> str:
    parts = re.split(r"[/\\]", name)
    if parts[-1] != _DIRECTORY:
        return name
    return name[: -len(_DIRECTORY) - 1] or "."
