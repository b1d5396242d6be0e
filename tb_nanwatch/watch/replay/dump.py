"""The dump that TensorFlow's debugger writes of a replay, for the Debugger V2 tab."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from tb_nanwatch.watch.record.paths import require_nameable

_used: set[str] = set()


def folder_for_dump(logdir: str, name: str) -> str:
    """Create a folder that never held a dump: ``name``, or if that exists, ``name-2`` or the next free name.

    A reader rejects a folder with the dumps of two programs, which a run that restarts in its directory would leave.
    Within one program, TensorFlow cannot write to a folder again once it is done with it, even if it was deleted.

    Args:
        logdir: the directory of the run.
        name: the folder's name, relative to it.

    Returns:
        The folder's name, relative to ``logdir``.

    Raises:
        OpError: if it cannot be created.
        OSError: if its path cannot be the name of a file.
    """
    require_nameable(logdir)
    for number in itertools.count(1):
        free = name if number == 1 else f"{name}-{number}"
        root = os.path.join(logdir, free)
        if root not in _used and not tf.io.gfile.exists(root):
            break
    _used.add(root)
    tf.io.gfile.makedirs(root)
    return free


@contextmanager
def dumped(root: str | None) -> Iterator[None]:
    """Make TensorFlow's debugger write the health of every tensor that is traced and run meanwhile.

    Args:
        root: the folder; ``None`` to write nothing.
    """
    if root is None:
        yield
        return
    # By default the debugger keeps the last 1,000 events, and the first bad event may not be among them.
    tf.debugging.experimental.enable_dump_debug_info(root, "CONCISE_HEALTH", circular_buffer_size=-1)
    try:
        yield
    finally:
        tf.debugging.experimental.disable_dump_debug_info()
