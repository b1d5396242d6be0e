"""Opens a log directory without a running TensorBoard, on the path that TensorBoard's own reading takes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing import io_wrapper, tag_types
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext

from tb_nanwatch.errors import LogdirError
from tb_nanwatch.reading.checksums import take_checksums_fast
from tb_nanwatch.reading.provider import RunReader
from tb_nanwatch.reading.source import Experiment
from tb_nanwatch.reading.tags import is_run_directory

THE_LOGDIR: Final = Experiment(RequestContext(), "")
"""The experiment under which the runs of an opened directory are found."""
_CUT: Final = "ends within a record: it is still being written, or its writer was stopped. What stands before is read."
_CORRUPT: Final = "holds a record whose checksum is wrong. What stands before it is read, what follows is lost."
_LOG: Final = logging.getLogger("tensorboard")


def open_logdir(logdir: str) -> RunReader:
    """Read every run below a directory.

    Args:
        logdir: as TensorBoard takes it: a directory, or an address that TensorBoard's file layer knows.

    Returns:
        A reader whose runs are those of :data:`THE_LOGDIR`. Where a file breaks off or is corrupt, what
        stands before is read and the break is among the run's problems.

    Raises:
        LogdirError: if there is no such directory.
    """
    path = logdir if _is_address(logdir) else _checked(Path(logdir))
    multiplexer = EventMultiplexer(size_guidance={tag_types.TENSORS: 0}, purge_orphaned_data=False)
    # From here on a run that is added is read at once, so that each one's trouble is its own.
    multiplexer.Reload()
    problems = {name: _read(multiplexer, name, directory) for name, directory in _run_directories(path)}
    known = {name: found for name, found in problems.items() if found}
    return RunReader(MultiplexerDataProvider(multiplexer, path), known_problems=known)


def leave_tensorflow_out(logdir: str) -> None:
    """Make TensorBoard read a directory by its own means, for to import TensorFlow takes 4 s (measured).

    This holds for the whole process, so it is for a program that does nothing but read. An address that is not of this
    machine may need TensorFlow to be read at all.

    Args:
        logdir: as :func:`open_logdir` takes it.
    """
    if not _is_address(logdir):
        # TensorBoard looks for a module of this name, which its build adds where TensorFlow must not be used.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        take_checksums_fast()


def _is_address(logdir: str) -> bool:
    return "://" in logdir


def _checked(logdir: Path) -> str:
    path = logdir.expanduser()
    try:
        if path.is_dir():
            return str(path)
        found = "a file" if path.exists() else "nothing"
    except OSError as error:
        found = f"what this user may not look at ({error.strerror})"
    raise LogdirError(f"a logdir must be a directory; at {path} there is {found}")


def _run_directories(path: str) -> Iterator[tuple[str, str]]:
    """Yield the run's name in TensorBoard, and its directory, of each that a watch writes to."""
    directories = io_wrapper.GetLogdirSubdirectories(path) if _is_address(path) else _local_directories(path)
    for directory in directories:
        if is_run_directory(str(Path(directory).absolute())):
            yield os.path.relpath(directory, path), directory


def _local_directories(path: str) -> Iterator[str]:
    # TensorBoard's own walk ends at the first name that is no text, and goes round in rings of links.
    for directory, below, files in os.walk(path, followlinks=True):
        below[:] = sorted(name for name in below if not _leads_back(Path(directory), name))
        if any("tfevents" in file for file in files):
            yield directory


def _leads_back(directory: Path, name: str) -> bool:
    link = directory / name
    return link.is_symlink() and directory.resolve().is_relative_to(link.resolve())


def _read(multiplexer: EventMultiplexer, name: str, directory: str) -> tuple[str, ...]:
    with _heard() as messages:
        try:
            multiplexer.AddRun(directory, name)
        except (OSError, ValueError, KeyError, TypeError, DecodeError) as error:
            what = "a name that is no text" if isinstance(error, UnicodeError) else "a record that is no event"
            messages.append(f"reading stopped at {what} ({type(error).__name__}).")
    return tuple(dict.fromkeys(messages))


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what TensorBoard logs of files that break off; it says so nowhere else."""
    ear = _Ear()
    level, propagate = _LOG.level, _LOG.propagate
    _LOG.addHandler(ear)
    _LOG.setLevel(logging.DEBUG)
    _LOG.propagate = False
    try:
        yield ear.messages
    finally:
        _LOG.removeHandler(ear)
        _LOG.setLevel(level)
        _LOG.propagate = propagate


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # TensorBoard calls both so: a record that ends too soon, and one whose checksum is wrong.
        if str(record.msg).startswith("Truncated record"):
            file, reason = (str(argument) for argument in record.args or ("", ""))
            self.messages.append(f"{Path(file).name} {_CUT if 'truncated' in reason else _CORRUPT}")
