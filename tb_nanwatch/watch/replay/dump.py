"""The dump: what TensorFlow's own debugger writes of a trial, for its Debugger V2 tab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


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
