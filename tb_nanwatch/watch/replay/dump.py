"""The dump: what TensorFlow's own debugger writes of a trial, for its Debugger V2 tab."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from tb_nanwatch.watch.record.paths import require_nameable
from tb_nanwatch.watch.tf_internals import is_dumping

_taken: set[str] = set()


def folder_for_dump(logdir: str, name: str) -> str:
    """Make a folder that was never dumped to: ``name``, or if there was one, ``name-2`` or the next free.

    A reader refuses a folder with the dumps of two programs, as a run that is begun again in its directory leaves them;
    and within a program TensorFlow cannot write to a folder again that it has done with, were it deleted meanwhile.

    Args:
        logdir: of the run.
        name: relative to it.

    Returns:
        The folder's name, relative to ``logdir``.

    Raises:
        OpError: if it cannot be made.
        OSError: if its path cannot be the name of a file.
    """
    require_nameable(logdir)
    for number in itertools.count(1):
        free = name if number == 1 else f"{name}-{number}"
        root = os.path.join(logdir, free)
        if root not in _taken and not tf.io.gfile.exists(root):
            break
    _taken.add(root)
    tf.io.gfile.makedirs(root)
    return free


def is_debugger_on() -> bool:
    """Return whether the user has TensorFlow's debugger write a dump already; there can be one only."""
    return is_dumping()


@contextmanager
def dumped(root: str | None) -> Iterator[None]:
    """Have TensorFlow's debugger write the health of every tensor of what is traced and run meanwhile.

    Args:
        root: folder to write to; ``None`` to write nothing.
    """
    if root is None:
        yield
        return
    # The debugger's usual buffer keeps the last 1,000 events, and the first bad one may not be among them.
    tf.debugging.experimental.enable_dump_debug_info(root, "CONCISE_HEALTH", circular_buffer_size=-1)
    try:
        yield
    finally:
        tf.debugging.experimental.disable_dump_debug_info()
