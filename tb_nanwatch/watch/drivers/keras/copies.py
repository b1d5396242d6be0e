"""The runs of copied callbacks: each copy that trains has a directory of its own."""

from __future__ import annotations

import itertools
import os
import re
from typing import Final

import tensorflow as tf

from tb_nanwatch.watch.boundary import attempt
from tb_nanwatch.watch.record.paths import names_in, require_nameable

_COPY: Final = re.compile(r"copy-(\d{1,9})/?")


def make_run_of_copy(directory: str) -> str:
    """Make a new directory below a run's directory, and return its name: ``copy-1``, ``copy-2`` and so on.

    Trials of a search may run in several processes at once, so the directory is made here and not by the first
    message: of two processes that choose a name at the same time, one fails to make it and takes the next.

    Args:
        directory: of the callback that was copied.

    Returns:
        The name, relative to ``directory``; ``copy-1`` where nothing can be made.
    """
    return attempt(lambda: _made(directory), failed=lambda _: "copy-1")


def _made(directory: str) -> str:
    require_nameable(directory)
    tf.io.gfile.makedirs(directory)
    taken = [int(found[1]) for name in names_in(directory) if (found := _COPY.fullmatch(name))]
    names = (f"copy-{number}" for number in itertools.count(max(taken, default=0) + 1))
    return next(name for name in names if _is_made_here(os.path.join(directory, name)))


def _is_made_here(path: str) -> bool:
    """Make a directory, and return whether it was not there before."""
    if "://" in path:
        # TensorFlow's mkdir accepts a directory that is there already.
        is_new = not tf.io.gfile.exists(path)
        tf.io.gfile.mkdir(path)
        return is_new
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True
