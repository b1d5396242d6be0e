"""Watched runs below local directories, read from their files without TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Final

from tb_nanwatch.reading.event_file import EventFile, event_files_in
from tb_nanwatch.reading.messages import Datum
from tb_nanwatch.reading.source import FilesOfRun
from tb_nanwatch.reading.tags import Tag, is_run_directory

_WALK_EVERY_S: Final = 5.0
_WALK_SHARE: Final = 0.05
"""Largest share of time to spend on walking through the directories."""
_WRITING_S: Final = 10.0
"""A file that changed less than this many seconds ago may still be written."""
_PATIENCE_S: Final = 0.1


class LocalRuns:
    """Scans the event files of watched runs. Several threads may share one object."""

    def __init__(self, roots: Mapping[str, str | None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Store the directories.

        Args:
            roots: by directory, the name that TensorBoard puts before its runs, if any.
            clock: returns the time in seconds.
        """
        self._roots, self._clock = roots, clock
        self._directories: dict[str, str] = {}
        self._files: dict[str, dict[Path, EventFile]] = {}
        self._walk_at_s = float("-inf")
        self._scanning = Lock()

    def scan(self) -> dict[str, FilesOfRun]:
        """Return a summary of each run's files, by the run's name in TensorBoard."""
        with self._scanning:
            if self._clock() >= self._walk_at_s:
                self._walk()
            self._files = {name: self._files_in(name) for name in self._directories}
            files = [file for of_run in self._files.values() for file in of_run.values()]
            for file in files:
                file.refresh()
            # The writer may be in the middle of a record: wait, and read such files again.
            incomplete = [file for file in files if file.problems and _was_just_changed(file.path)]
            if incomplete:
                time.sleep(_PATIENCE_S)
                for file in incomplete:
                    file.refresh()
            existing = {
                name: [file for file in of_run.values() if not file.is_gone] for name, of_run in self._files.items()
            }
            return {name: _summary(of_run) for name, of_run in existing.items() if of_run}

    def read(self, name: str, tag: Tag) -> list[Datum] | None:
        """Return the messages of a tag; ``None`` if the files have changed since the last scan."""
        # Tags in a file have no worker number. The directory shows which process wrote the file.
        tag_in_file = replace(tag, worker=0)
        with self._scanning:
            try:
                return [datum for file in self._files.get(name, {}).values() for datum in file.read(tag_in_file)]
            except OSError:
                return None

    def _walk(self) -> None:
        began = self._clock()
        paths = ((root, prefix, path) for root, prefix in self._roots.items() for path in _run_directories(root))
        self._directories = {_name(root, prefix, path): path for root, prefix, path in paths}
        ended = self._clock()
        self._walk_at_s = ended + max(_WALK_EVERY_S, (ended - began) / _WALK_SHARE)

    def _files_in(self, name: str) -> dict[Path, EventFile]:
        known = self._files.get(name, {})
        return {path: known.get(path) or EventFile(path) for path in event_files_in(self._directories[name])}


def _summary(files: list[EventFile]) -> FilesOfRun:
    places: dict[Tag, list[tuple[int, float]]] = {}
    for file in files:
        for tag, of_tag in file.places.items():
            places.setdefault(tag, []).extend((place.step, place.wall_time) for place in of_tag)
    remarks = (
        f"{file.path.name}: its records are out of the order of their steps; all of them are read."
        for file in files
        if file.is_out_of_order
    )
    return FilesOfRun(
        stamps={tag: (max(step for step, _ in of_tag), (of_tag[-1], len(of_tag))) for tag, of_tag in places.items()},
        problems=tuple(problem for file in files for problem in file.problems),
        remarks=tuple(remarks),
        is_irregular=any(file.is_irregular for file in files),
    )


def _was_just_changed(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < _WRITING_S
    except OSError:
        return False


def _name(root: str, prefix: str | None, path: str) -> str:
    name = os.path.relpath(path, root)
    return f"{prefix}{os.sep}{name}" if prefix else name


def _run_directories(root: str) -> Iterator[str]:
    """Yield each directory with event files of a watch. Links are followed, but not back to a parent directory."""
    for directory, below, files in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not _leads_back(Path(directory), name))
        has_events = any("tfevents" in name for name in files)
        if has_events and is_run_directory(str(Path(directory).absolute())):
            yield directory


def _leads_back(directory: Path, name: str) -> bool:
    link = directory / name
    return link.is_symlink() and directory.resolve().is_relative_to(link.resolve())
