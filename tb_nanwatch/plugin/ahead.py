"""Reading ahead: existing runs are read when TensorBoard starts, before the first request."""

from __future__ import annotations

import time
from threading import Thread
from typing import Final

from tensorboard.context import RequestContext
from tensorboard.errors import PublicError

from tb_nanwatch.reading.provider import RunReader
from tb_nanwatch.reading.source import Experiment, ProviderError, RunIndex

_CHECK_INTERVAL_S: Final = 1.0
_CHECKS: Final = 120
_CHECKS_WITHOUT_NEWS: Final = 10
_CHECKS_BEFORE_READING: Final = 5
"""Checks before a growing list is read. It may grow because TensorBoard still finds files, or because of a training."""


def read_ahead(reader: RunReader) -> Thread:
    """Read every run in a thread, until TensorBoard has found all files.

    Args:
        reader: reads the runs and caches them. A request waits at most for the runs that are being read.

    Returns:
        The thread, which ends by itself.
    """
    thread = Thread(target=_read, args=[reader], name="nanwatch-ahead", daemon=True)
    thread.start()
    return thread


def _read(reader: RunReader) -> None:
    last: RunIndex | None = None
    unchanged = 0
    for check in range(1, _CHECKS):
        try:
            index = reader.index(Experiment(RequestContext(), ""))
            unchanged = unchanged + 1 if last is not None and last.stamps == index.stamps else 0
            if unchanged == 1 or check % _CHECKS_BEFORE_READING == 0:
                reader.verdicts(index)
        # A provider that requires authentication cannot be read ahead.
        except (ProviderError, PublicError):
            return
        if unchanged >= _CHECKS_WITHOUT_NEWS:
            return
        last = index
        time.sleep(_CHECK_INTERVAL_S)
