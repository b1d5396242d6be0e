"""The writer: messages into TensorFlow event files, and the one boundary where a failure is swallowed.

Watching must not end training, so whatever goes wrong with the disk becomes one warning, after which nothing more is
written.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from tb_nanwatch.schema import wire
from tb_nanwatch.schema.records import Alert, Header, Series

_T = TypeVar("_T")
SUBDIRECTORY = "nanwatch"


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
        self._file: tf.summary.SummaryWriter | None = None
        self._failed = False
        self._session: int | None = None
        self._alerts = 0

    def next_session(self) -> int:
        """Return the number of a new session: one more than the last in this directory, 0 for the first."""
        if self._session is not None:
            self._session += 1
        else:
            files = self._attempt(lambda: tf.io.gfile.glob(os.path.join(self._directory, "*tfevents*")))
            self._session = len(files or ())
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

    def flush(self) -> None:
        """Hand everything written so far to the file system."""
        if self._file is not None:
            self._attempt(self._file.flush)

    def close(self) -> None:
        """Flush and close the file."""
        if self._file is not None:
            self._attempt(self._file.close)
            self._file = None

    def _write(self, tag: str, data: bytes, *, step: int) -> None:
        self._attempt(lambda: self._put(f"{wire.PLUGIN_NAME}/{self._session}/{tag}", data, step))

    def _put(self, tag: str, data: bytes, step: int) -> None:
        if self._file is None:
            self._file = tf.summary.create_file_writer(self._directory)
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=wire.PLUGIN_NAME),
            data_class="DATA_CLASS_TENSOR",
        )
        with self._file.as_default(), tf.summary.record_if(True):
            tf.summary.write(tag, tf.constant(data), step=step, metadata=metadata)

    def _attempt(self, action: Callable[[], _T]) -> _T | None:
        if self._failed:
            return None
        try:
            with tf.init_scope():
                return action()
        except Exception as error:  # noqa: BLE001 - a decision: no failure to write may stop training
            self._failed = True
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(
                f"tb_nanwatch cannot write to {self._directory!r} and records nothing more; training goes on"
                f" ({first_line})",
                stacklevel=2,
            )
            return None
