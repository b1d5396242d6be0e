"""A cache of the list of runs, which limits the requests to the data provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from typing import Final, NamedTuple

from tensorboard.errors import PublicError

from tb_nanwatch.reading.source import Experiment, ProviderError, RunIndex

THREAD: Final = "nanwatch-listing"
_STALE_AFTER_S: Final = 2.0
_AGEING_AFTER_S: Final = 0.5


class _Listed(NamedTuple):
    runs: RunIndex
    at_s: float


class Listing:
    """Keeps the last list of each experiment for two seconds.

    The data server needs 5 to 45 ms for a list, which may be more than the rest of an answer. The cache returns a list
    that is new enough at once. If it is older than half a second, a thread fetches the next one in the meantime.
    """

    def __init__(self, fetch: Callable[[Experiment], RunIndex], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Cache the results of ``fetch``; ``clock`` returns the time in seconds."""
        self._fetch, self._clock = fetch, clock
        self._listed: dict[str, _Listed] = {}
        self._fetching_ahead, self._fetching = Lock(), Lock()

    def index(self, experiment: Experiment) -> RunIndex:
        """Return the list of runs; raise the errors of ``fetch``."""
        listed = self._fresh(experiment)
        if listed is None:
            with self._fetching:
                # A thread that waited for the lock uses the list that another thread fetched.
                listed = self._fresh(experiment) or self._fetch_now(experiment)
        elif self._age_s(listed) > _AGEING_AFTER_S and self._fetching_ahead.acquire(blocking=False):
            Thread(target=self._fetch_ahead, args=[experiment], name=THREAD, daemon=True).start()
        return listed.runs

    def _fresh(self, experiment: Experiment) -> _Listed | None:
        listed = self._listed.get(experiment.id)
        return listed if listed is not None and self._age_s(listed) <= _STALE_AFTER_S else None

    def _age_s(self, listed: _Listed) -> float:
        return self._clock() - listed.at_s

    def _fetch_now(self, experiment: Experiment) -> _Listed:
        listed = _Listed(self._fetch(experiment), self._clock())
        # A URL may name any experiment. Drop old lists, so that they do not accumulate.
        fresh = {name: other for name, other in self._listed.items() if self._age_s(other) <= _STALE_AFTER_S}
        self._listed = {**fresh, experiment.id: listed}
        return listed

    def _fetch_ahead(self, experiment: Experiment) -> None:
        try:
            # Ignore errors here: the next request fetches again and reports them.
            with suppress(ProviderError, PublicError), self._fetching:
                self._fetch_now(experiment)
        finally:
            self._fetching_ahead.release()
