"""Opens a log directory of this machine without a running TensorBoard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tensorboard.context import RequestContext

from tb_nanwatch.errors import LogdirError
from tb_nanwatch.reading.local_runs import LocalRuns
from tb_nanwatch.reading.provider import RunReader
from tb_nanwatch.reading.source import Experiment

THE_LOGDIR: Final = Experiment(RequestContext(), "")
"""The experiment under which the runs of an opened directory are found."""
_ADDRESS: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


def open_logdir(logdir: str) -> RunReader:
    """Read every run below a directory.

    Args:
        logdir: a directory of this machine.

    Returns:
        A reader whose runs are those of :data:`THE_LOGDIR`. What of a file is damaged is among the run's problems, and
        the rest is read.

    Raises:
        LogdirError: if there is no such directory.
    """
    return RunReader(None, files=LocalRuns({_checked(logdir): None}))


def local_runs(logdir: str, logdir_spec: str = "") -> LocalRuns | None:
    """Return the runs of a TensorBoard whose files lie on this machine.

    Args:
        logdir: as TensorBoard was given it; empty where it was not.
        logdir_spec: what it was given in its place: directories separated by commas, each of them with a name and a
            colon before it, or without.

    Returns:
        ``None`` where all are elsewhere, or no directory is known.
    """
    roots = [(None, logdir)] if logdir else [_named(part) for part in logdir_spec.split(",") if part]
    local = {str(Path(root).expanduser()): name for name, root in roots if not _ADDRESS.match(root)}
    return LocalRuns(local) if local else None


def _named(part: str) -> tuple[str | None, str]:
    name, colon, path = part.partition(":")
    is_named = colon and not _ADDRESS.match(part) and not part.startswith("/")
    return (name, path) if is_named else (None, part)


def _checked(logdir: str) -> str:
    if _ADDRESS.match(logdir):
        raise LogdirError(
            f"a logdir must be a directory of this machine; {logdir} is an address: copy the run here, or open it in"
            " TensorBoard"
        )
    try:
        path = Path(logdir).expanduser()
        if path.is_dir():
            return str(path)
        found = "a file" if path.exists() else "nothing"
    except OSError as error:
        found = f"what this user may not look at ({error.strerror})"
    except (ValueError, RuntimeError):  # a NUL in it, or a home that is not known
        raise LogdirError(f"a logdir must be a directory; {logdir} is no path") from None
    raise LogdirError(f"a logdir must be a directory; at {path} there is {found}")
