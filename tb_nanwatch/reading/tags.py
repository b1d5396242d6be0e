"""The names under which a watched run is found: TensorBoard's runs, and the tags in each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, cast

Part = Literal["header", "spans", "alerts"]

_DIRECTORY: Final = "nanwatch"
_TAG: Final = re.compile(
    r"nanwatch/(?P<session>\d{1,9})/(?:(?P<part>header)|(?P<spans>spans)/\d{1,9}|(?P<alerts>alerts)/-?\d{1,19}-\d{1,9})",
    re.ASCII,
)


@dataclass(frozen=True, order=True)
class Tag:
    """One tag of a session: its header, the spans of a generation, or an alert."""

    session: int
    part: Part
    name: str


def parse_tag(name: str) -> Tag | None:
    """Read a tag's name; ``None`` for one that a newer version may have added.

    Example:
        >>> parse_tag("nanwatch/0/spans/3")
        Tag(session=0, part='spans', name='nanwatch/0/spans/3')
    """
    match = _TAG.fullmatch(name)
    if match is None:
        return None
    part = next(part for part in ("part", "spans", "alerts") if match[part])
    return Tag(int(match["session"]), cast("Part", match[part]), name)


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


def is_run_directory(name: str) -> bool:
    """Whether a directory of this name is one that a watch writes to."""
    return name == _DIRECTORY


def _called(name: str) -> str:
    parts = re.split(r"[/\\]", name)
    if not is_run_directory(parts[-1]):
        return name
    return name[: -len(_DIRECTORY) - 1] or "."
