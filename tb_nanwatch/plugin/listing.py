"""The list of what there is to read, asked for no more often than it is worth."""

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
    """Keeps the last list of an experiment for two seconds.

    The data server takes 5 ms for it or 45 ms, as the network has it, which may be more than all the rest of an answer.
    A list that is still good is handed out at once, and once it is half a second old the next one is fetched meanwhile.
    """

    def __init__(self, ask: Callable[[Experiment], RunIndex], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep what ``ask`` returns, for as long as ``clock`` says, in seconds."""
        self._ask, self._clock = ask, clock
        self._listed: dict[str, _Listed] = {}
        self._fetching, self._asking = Lock(), Lock()

    def index(self, experiment: Experiment) -> RunIndex:
        """Return what there is to read; raises what asking for it raises."""
        listed = self._good(experiment)
        if listed is None:
            with self._asking:
                # Who waited while another asked takes the answer to that.
                listed = self._good(experiment) or self._fetch(experiment)
        elif self._age_s(listed) > _AGEING_AFTER_S and self._fetching.acquire(blocking=False):
            Thread(target=self._fetch_ahead, args=[experiment], name=THREAD, daemon=True).start()
        return listed.runs

    def _good(self, experiment: Experiment) -> _Listed | None:
        listed = self._listed.get(experiment.id)
        return listed if listed is not None and self._age_s(listed) <= _STALE_AFTER_S else None

    def _age_s(self, listed: _Listed) -> float:
        return self._clock() - listed.at_s

    def _fetch(self, experiment: Experiment) -> _Listed:
        listed = _Listed(self._ask(experiment), self._clock())
        # An address may name any experiment, so that their lists must not add up.
        good = {name: other for name, other in self._listed.items() if self._age_s(other) <= _STALE_AFTER_S}
        self._listed = {**good, experiment.id: listed}
        return listed

    def _fetch_ahead(self, experiment: Experiment) -> None:
        try:
            # Who asks next asks again, and is told what is wrong.
            with suppress(ProviderError, PublicError), self._asking:
                self._fetch(experiment)
        finally:
            self._fetching.release()
