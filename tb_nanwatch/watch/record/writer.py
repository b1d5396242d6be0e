"""The writer: messages into TensorFlow event files.

Watching must not end training, so whatever goes wrong with the disk becomes one warning, after which nothing more is
written. TensorFlow's own summary writer would say nothing of a full disk, and lose what comes after it.
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
import warnings
from collections.abc import Callable
from typing import Final, TypeVar

import tensorflow as tf

from tb_nanwatch.schema import wire
from tb_nanwatch.schema.records import Alert, Header, Series
from tb_nanwatch.watch.boundary import attempt
from tb_nanwatch.watch.record.paths import is_gone, is_remote, names_in, require_nameable
from tb_nanwatch.watch.record.rest_files import RestFiles, is_rest_file

_T = TypeVar("_T")
SUBDIRECTORY: Final = "nanwatch"
FLUSH_EVERY_S: Final = 5.0
_VERSION: Final = "brain.Event:2"
_METADATA: Final = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=wire.PLUGIN_NAME),
    data_class="DATA_CLASS_TENSOR",
)
_TIME_OF_FILE: Final = re.compile(r"tfevents\.(\d{10})\.")
_SESSION_OF_FILE: Final = re.compile(r"\.session-(\d+)\.v2$")


class Writer:
    """Writes one run's messages into a directory of its own.

    TensorBoard follows only the newest event file of a directory, so sharing one with another writer would hide
    either.
    """

    def __init__(self, logdir: str) -> None:
        """Choose the directory; it is made when the first message is written.

        Args:
            logdir: the run's directory; messages go into a sub-directory of it.
        """
        self._directory = os.path.join(logdir, SUBDIRECTORY)
        self._file: tf.io.TFRecordWriter | None = None
        self._rest: RestFiles | None = None
        self._path = self._stem_of_rest = ""
        self._wall_time = 0.0
        self._flushed_at_s = -math.inf
        self._failed = False
        self._session: int | None = None
        self._alerts = 0

    def go_below(self, name: str) -> None:
        """Write into a sub-directory from here on; call it before the first message."""
        self._directory = os.path.join(self._directory, name)

    def next_session(self) -> int:
        """Begin a session, and return its number: one more than the last in this directory, 0 for the first.

        Each has a file of its own, whose name ends in the number, so that nothing need be read to count them.
        """
        self.close()
        files = self._attempt(self._files) or []
        numbers = [int(found[1]) for name in files if (found := _SESSION_OF_FILE.search(name))]
        self._session = max([len(files) - 1, *numbers, -1 if self._session is None else self._session]) + 1
        return self._session

    def write_header(self, header: Header) -> None:
        """Write the header of the current session."""
        self._write("header", wire.encode_header(header), step=0)

    def write_spans(self, series: Series, *, generation: int) -> None:
        """Write a chunk of spans; its step is its last."""
        data = wire.encode_series(series, generation=generation)
        self._write(f"spans/{generation}", data, step=int(series.last_step[-1]))

    def write_alert(self, alert: Alert) -> None:
        """Write an alert under a tag of its own, and see to it that it reaches the disk."""
        self._write(f"alerts/{alert.step}-{self._alerts}", wire.encode_alert(alert), step=alert.step)
        self._alerts += 1
        self.flush()

    def keep(self, rest: tuple[int, Series] | None) -> None:
        """See to it that nothing is lost of what was written, nor of a span that is not full, if the process is killed.

        A remote file system sends what it is handed, so there it is handed over only every few seconds.

        Args:
            rest: the span's generation, and the span; ``None`` where there is none.
        """
        if is_remote(self._directory) and time.monotonic() < self._flushed_at_s + FLUSH_EVERY_S:
            return
        # First what is full: a reader takes of the spans that were not full the last alone.
        self.flush()
        if rest is not None and self._file is not None:
            self._attempt(lambda: self._put_rest(*rest))

    def flush(self) -> None:
        """Hand everything written so far to the file system."""
        if self._file is not None:
            self._attempt(self._hand_over)
            self._flushed_at_s = time.monotonic()

    def close(self) -> None:
        """Flush and close the file; what was left of a span must have been written."""
        if self._file is not None:
            self._attempt(self._file.close)
            self._file = None
        if self._rest is not None:
            self._attempt(self._rest.remove)
            self._rest = None

    def _write(self, tag: str, data: bytes, *, step: int) -> None:
        self._attempt(lambda: self._put(f"{wire.PLUGIN_NAME}/{self._session}/{tag}", data, step))

    def _put(self, tag: str, data: bytes, step: int) -> None:
        file = self._open() if self._file is None else self._file
        file.write(self._event(tag, data, step))

    def _put_rest(self, generation: int, span: Series) -> None:
        if self._rest is None:
            self._rest = RestFiles(self._stem_of_rest, heading=self._heading())
        data = wire.encode_series(span, generation=generation)
        # Of the events of a tag at one step, TensorBoard's data server keeps the last.
        self._rest.write(self._event(f"{wire.PLUGIN_NAME}/{self._session}/rest", data, step=0))

    def _event(self, tag: str, data: bytes, step: int) -> bytes:
        value = tf.compat.v1.Summary.Value(tag=tag, metadata=_METADATA, tensor=tf.make_tensor_proto(data))
        summary = tf.compat.v1.Summary(value=[value])
        event: bytes = tf.compat.v1.Event(wall_time=self._now(), step=step, summary=summary).SerializeToString()
        return event

    def _heading(self) -> bytes:
        heading: bytes = tf.compat.v1.Event(wall_time=self._now(), file_version=_VERSION).SerializeToString()
        return heading

    def _now(self) -> float:
        # Of two spans that overlap a reader takes the later: a clock that is set back must not turn that round.
        self._wall_time = max(self._wall_time, time.time())
        return self._wall_time

    def _hand_over(self) -> None:
        if self._file is not None:
            self._file.flush()
        # The system takes what is written to a deleted file, and nobody ever reads it.
        if is_gone(self._path):
            raise FileNotFoundError(f"{self._path} was deleted")

    def _open(self) -> tf.io.TFRecordWriter:
        require_nameable(self._directory)
        tf.io.gfile.makedirs(self._directory)
        self._path, self._stem_of_rest = self._new_paths()
        self._file, self._flushed_at_s = tf.io.TFRecordWriter(self._path), -math.inf
        self._file.write(self._heading())
        return self._file

    def _new_paths(self) -> tuple[str, str]:
        """Return where the next file goes, and the stem of its rest files.

        By name the file is after all that there are, because TensorBoard reads on from there; its rest files are
        between these and it. The time alone would not do: a session that goes on in the second in which it was closed
        overwrote its file.
        """
        found = (_TIME_OF_FILE.search(name) for name in names_in(self._directory))
        second = max([int(time.time()), *(int(match[1]) + 2 for match in found if match)])
        whose = f"{socket.gethostname()}.{os.getpid()}.session-{self._session}"
        path, rest = (f"events.out.tfevents.{second - before:010d}.{whose}" for before in (0, 1))
        return os.path.join(self._directory, f"{path}.v2"), os.path.join(self._directory, rest)

    def _files(self) -> list[str]:
        return [name for name in names_in(self._directory) if "tfevents" in name and not is_rest_file(name)]

    def _attempt(self, action: Callable[[], _T]) -> _T | None:
        return None if self._failed else attempt(action, failed=self._give_up)

    def _give_up(self, reason: str) -> None:
        self._failed = True
        warnings.warn(
            f"tb_nanwatch cannot write to {self._directory!r} and records nothing more; training goes on ({reason})",
            stacklevel=2,
        )
