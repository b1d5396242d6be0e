"""Rest files: the span that is not full, in files beside the log, because an event file can only grow.

In a long run a span has more steps than the host reads at once. In memory a killed process would lose it. In the log
it would be written again with each read, and the log would grow with the steps and not with their logarithm. So it
goes to a file beside the log, and a new file replaces that file when it has grown. The log gets the full span later; a
reader takes the later of two spans that overlap.
"""

from __future__ import annotations

from typing import Final

import tensorflow as tf

BYTES_A_FILE: Final = 256 * 1024
_MARK: Final = ".rest-"
_KEPT_FILES: Final = 2
"""A file that a reader has just seen in the directory must still exist when the reader opens it."""


def is_rest_file(name: str) -> bool:
    """Return whether a file of this name holds spans that were not full."""
    return _MARK in name


class RestFiles:
    """Writes the span of a session that is not full."""

    def __init__(self, stem: str, *, heading: bytes) -> None:
        """Begin; nothing is written before the first span.

        Args:
            stem: the common beginning of the files' paths. By name the files must come before the log's own file,
                because TensorBoard follows only the last file of a directory.
            heading: the first record of each file.
        """
        self._stem, self._heading = stem, heading
        self._file: tf.io.TFRecordWriter | None = None
        self._paths: list[str] = []
        self._bytes, self._made = 0, 0

    def write(self, event: bytes) -> None:
        """Write a span, which replaces all spans before it, and hand it to the file system."""
        if self._file is None or self._bytes > BYTES_A_FILE:
            self._open()
        if self._file is not None:
            self._file.write(event)
            self._file.flush()
        self._bytes += len(event)

    def remove(self) -> None:
        """Remove all files, after the session wrote the span to its log."""
        self._close()
        self._remove_old(kept=0)

    def _open(self) -> None:
        self._close()
        path = f"{self._stem}{_MARK}{self._made:09d}.v2"
        self._file = tf.io.TFRecordWriter(path)
        self._file.write(self._heading)
        self._paths.append(path)
        self._made, self._bytes = self._made + 1, 0
        self._remove_old(kept=_KEPT_FILES)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove_old(self, *, kept: int) -> None:
        while len(self._paths) > kept:
            path = self._paths.pop(0)
            if tf.io.gfile.exists(path):
                tf.io.gfile.remove(path)
