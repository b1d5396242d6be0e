"""The writer: messages into TensorFlow event files.

Watching must not end training, so an error of the disk becomes one warning, and nothing more is written after it.
TensorFlow's own summary writer ignores a full disk, and loses all later messages.
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
    """Writes the messages of a run into a directory that no other writer uses.

    TensorBoard follows only the newest event file of a directory, so it would hide the files of one of two writers.
    """

    def __init__(self, logdir: str) -> None:
        """Choose the directory; the first message creates it.

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
        """Write into a sub-directory from now on; call this before the first message."""
        self._directory = os.path.join(self._directory, name)

    def next_session(self) -> int:
        """Begin a session, and return its number: 0 for the first in this directory, then one more for each.

        Each session has its own file, whose name ends in the number, so that no file is read to count them.
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
        """Write spans of one generation; the step of the event is the last of them."""
        data = wire.encode_series(series, generation=generation)
        self._write(f"spans/{generation}", data, step=int(series.last_step[-1]))

    def write_alert(self, alert: Alert) -> None:
        """Write an alert under its own tag, and hand it to the file system."""
        self._write(f"alerts/{alert.step}-{self._alerts}", wire.encode_alert(alert), step=alert.step)
        self._alerts += 1
        self.flush()

    def keep(self, rest: tuple[int, Series] | None) -> None:
        """Hand all spans to the file system, also one that is not full, so that a killed process does not lose them.

        A remote file system takes a request for it, so there this happens only every few seconds.

        Args:
            rest: generation of the span that is not full, and the span; ``None`` if there is none.
        """
        if is_remote(self._directory) and time.monotonic() < self._flushed_at_s + FLUSH_EVERY_S:
            return
        # Full spans come first: of the spans that are not full, a reader takes only the last.
        self.flush()
        if rest is not None and self._file is not None:
            self._attempt(lambda: self._put_rest(*rest))

    def flush(self) -> None:
        """Hand all messages so far to the file system."""
        if self._file is not None:
            self._attempt(self._hand_over)
            self._flushed_at_s = time.monotonic()

    def close(self) -> None:
        """Flush and close the file; the span that is not full must be written before."""
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
        # TensorBoard's data server keeps the last of the events with one tag and step.
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
        # A reader takes the later of two spans that overlap, so a clock that is set back must not swap them.
        self._wall_time = max(self._wall_time, time.time())
        return self._wall_time

    def _hand_over(self) -> None:
        if self._file is not None:
            self._file.flush()
        # The system accepts writes to a deleted file, and they are lost.
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
        """Return the path of the next file, and the stem of its rest files.

        By name the file comes after all files that exist, because TensorBoard follows the last file. Its rest files
        come between. The time in the name is not the current time alone: a session that goes on in the second in which
        it was closed would overwrite its file.
        """
        found = (_TIME_OF_FILE.search(name) for name in names_in(self._directory))
        second = max([int(time.time()), *(int(match[1]) + 2 for match in found if match)])
        origin = f"{socket.gethostname()}.{os.getpid()}.session-{self._session}"
        path, rest = (f"events.out.tfevents.{second - before:010d}.{origin}" for before in (0, 1))
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
