"""Opening of a local log directory without a running TensorBoard."""

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
"""The experiment that contains the runs of an opened directory."""
_ADDRESS: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


def open_logdir(logdir: str) -> RunReader:
    """Open a directory and return a reader of the runs below it.

    Args:
        logdir: a local directory.

    Returns:
        A reader whose runs belong to :data:`THE_LOGDIR`. A run's problems report damaged parts of its files; the reader
        reads all other parts.

    Raises:
        LogdirError: if the directory does not exist.
    """
    return RunReader(None, files=LocalRuns({_checked(logdir): None}))


def local_runs(logdir: str, logdir_spec: str = "") -> LocalRuns | None:
    """Return the local runs of a TensorBoard.

    Args:
        logdir: the flag ``--logdir`` of TensorBoard; empty if it is not set.
        logdir_spec: the flag ``--logdir_spec``: directories separated by commas, each optionally with a name and a
            colon before it.

    Returns:
        ``None`` if no directory is local.
    """
    roots = [(None, logdir)] if logdir else [_name_and_path(part) for part in logdir_spec.split(",") if part]
    local = {str(Path(root).expanduser()): name for name, root in roots if not _ADDRESS.match(root)}
    return LocalRuns(local) if local else None


def _name_and_path(part: str) -> tuple[str | None, str]:
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
        found = f"what this user may not read ({error.strerror})"
    except (ValueError, RuntimeError):  # the path holds a NUL, or the home directory of a user is unknown
        raise LogdirError(f"a logdir must be a directory; {logdir} is no path") from None
    raise LogdirError(f"a logdir must be a directory; at {path} there is {found}")
