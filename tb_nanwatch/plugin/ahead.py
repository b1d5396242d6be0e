"""Reading ahead: what was written before TensorBoard started is read before anybody asks for it."""

from __future__ import annotations

import time
from threading import Thread
from typing import Final

from tensorboard.context import RequestContext
from tensorboard.errors import PublicError

from tb_nanwatch.reading.provider import RunReader
from tb_nanwatch.reading.source import Experiment, ProviderError, RunIndex

_LOOKS_EVERY_S: Final = 1.0
_LOOKS: Final = 120
_LOOKS_WITHOUT_NEWS: Final = 10
_PATIENCE: Final = 5
"""Looks until it is read what is still growing: it may be TensorBoard that has not found all yet, or a training."""


def read_ahead(reader: RunReader) -> Thread:
    """Read every run in a thread of its own, until TensorBoard has found all there is.

    Args:
        reader: keeps what is read; who asks it meanwhile waits for no more than what is being read.

    Returns:
        The thread, which ends by itself.
    """
    thread = Thread(target=_read, args=[reader], name="nanwatch-ahead", daemon=True)
    thread.start()
    return thread


def _read(reader: RunReader) -> None:
    seen: RunIndex | None = None
    quiet = 0
    for look in range(1, _LOOKS):
        try:
            index = reader.index(Experiment(RequestContext(), ""))
            quiet = quiet + 1 if seen is not None and seen.stamps == index.stamps else 0
            if quiet == 1 or look % _PATIENCE == 0:
                reader.verdicts(index)
        # Where only those may read who say who they are, there is nothing to be read ahead.
        except (ProviderError, PublicError):
            return
        if quiet >= _LOOKS_WITHOUT_NEWS:
            return
        seen = index
        time.sleep(_LOOKS_EVERY_S)
