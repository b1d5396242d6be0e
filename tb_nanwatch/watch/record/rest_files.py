"""The span that is not full, on disk: files of its own, since an event file can only grow.

In a long run a span is of more steps than the host reads at once. If it waited in memory until it is full, a killed
process would lose it; if each read added it to the log, the log would grow with the steps and not with their logarithm.
So it goes to a file beside the log, which is replaced by a new one when it has grown. What is full is written to the
log later, and a reader takes the later of two spans that overlap.
"""

from __future__ import annotations

from typing import Final

import tensorflow as tf

BYTES_A_FILE: Final = 256 * 1024
_MARK: Final = ".rest-"
_KEPT: Final = 2
"""Files: one that a reader has just seen in the directory must still be there when it opens it."""


def is_rest_file(name: str) -> bool:
    """Return whether a file of this name holds spans that were not full."""
    return _MARK in name


class RestFiles:
    """Keeps the last span of a session that is not full."""

    def __init__(self, stem: str, *, heading: bytes) -> None:
        """Prepare; nothing is written before the first span.

        Args:
            stem: path of the files as far as they have it in common. By name they must come before the log's own file:
                TensorBoard follows only the last file of a directory.
            heading: the first record of each file.
        """
        self._stem, self._heading = stem, heading
        self._file: tf.io.TFRecordWriter | None = None
        self._paths: list[str] = []
        self._bytes, self._made = 0, 0

    def write(self, event: bytes) -> None:
        """Write a span in place of all before it, and hand it to the file system."""
        if self._file is None or self._bytes > BYTES_A_FILE:
            self._open()
        if self._file is not None:
            self._file.write(event)
            self._file.flush()
        self._bytes += len(event)

    def remove(self) -> None:
        """Remove all of it: the session wrote what was left."""
        self._close()
        self._keep(0)

    def _open(self) -> None:
        self._close()
        path = f"{self._stem}{_MARK}{self._made:09d}.v2"
        self._file = tf.io.TFRecordWriter(path)
        self._file.write(self._heading)
        self._paths.append(path)
        self._made, self._bytes = self._made + 1, 0
        self._keep(_KEPT)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, files: int) -> None:
        while len(self._paths) > files:
            path = self._paths.pop(0)
            if tf.io.gfile.exists(path):
                tf.io.gfile.remove(path)
