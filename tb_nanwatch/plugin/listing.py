"""The list of what there is to read, asked for no more often than it is worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from typing import Final, NamedTuple

from tensorboard.errors import PublicError

from tb_nanwatch.reading.source import Experiment, ProviderError, RunIndex

_STALE_AFTER_S: Final = 2.0
_IS_QUICK_S: Final = 0.01


class _Listed(NamedTuple):
    runs: RunIndex
    at_s: float
    took_s: float


class Listing:
    """Keeps the last list of an experiment for two seconds, where the data provider is slow to give it.

    The data server takes 40 ms for it, which is more than all the rest of an answer. A list that is still good is
    handed out at once, and the next one is fetched meanwhile.
    """

    def __init__(self, ask: Callable[[Experiment], RunIndex]) -> None:
        """Keep what ``ask`` returns."""
        self._ask = ask
        self._listed: dict[str, _Listed] = {}
        self._fetching, self._asking = Lock(), Lock()

    def index(self, experiment: Experiment) -> RunIndex:
        """Return what there is to read; raises what asking for it raises."""
        listed = self._listed.get(experiment.id)
        if listed is None or listed.took_s < _IS_QUICK_S or time.monotonic() > listed.at_s + _STALE_AFTER_S:
            return self._fetch(experiment)
        if time.monotonic() > listed.at_s + _STALE_AFTER_S / 4 and self._fetching.acquire(blocking=False):
            Thread(target=self._fetch_ahead, args=[experiment], daemon=True).start()
        return listed.runs

    def _fetch(self, experiment: Experiment) -> RunIndex:
        began_s = time.monotonic()
        with self._asking:
            listed = self._listed.get(experiment.id)
            if listed is not None and listed.at_s - listed.took_s > began_s:
                return listed.runs  # it was asked for after this began to wait
            return self._fetch_now(experiment)

    def _fetch_now(self, experiment: Experiment) -> RunIndex:
        began_s = time.monotonic()
        index = self._ask(experiment)
        now_s = time.monotonic()
        self._listed[experiment.id] = _Listed(index, now_s, now_s - began_s)
        return index

    def _fetch_ahead(self, experiment: Experiment) -> None:
        # Who asks next asks again, and is told what is wrong.
        with suppress(ProviderError, PublicError):
            self._fetch(experiment)
        self._fetching.release()
