"""A cache that many threads may share, of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

_V = TypeVar("_V")


class StampedCache(Generic[_V]):
    """Keeps the newest value of each key for as long as its stamp stays the same.

    When the values' weights exceed the budget, what was not asked for longest goes first. A value is made
    outside the lock: two threads may make the same one.
    """

    def __init__(self, budget: int, weigh: Callable[[_V], int]) -> None:
        self._budget, self._weigh = budget, weigh
        self._entries: OrderedDict[Hashable, tuple[Hashable, _V, int]] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def get(self, key: Hashable, stamp: Hashable) -> _V | None:
        """Return the value of ``key`` if it was put there with an equal ``stamp``."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry[0] != stamp:
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def newest(self, key: Hashable) -> _V | None:
        """Return the last value of ``key``, whatever its stamp."""
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None else entry[1]

    def put(self, key: Hashable, stamp: Hashable, *, value: _V, makes_room: bool = True) -> None:
        """Keep ``value`` in place of what ``key`` had; the newest stays, whatever it weighs.

        Args:
            key: of the value.
            stamp: of the value.
            value: to keep.
            makes_room: whether others may go for it; else a key that is new is not kept where there is no room.
        """
        weight = self._weigh(value)
        with self._lock:
            if key not in self._entries and not makes_room and self._total + weight > self._budget:
                return
            self._remove(key)
            self._entries[key] = (stamp, value, weight)
            self._total += weight
            while self._total > self._budget and len(self._entries) > 1:
                self._remove(next(iter(self._entries)))

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._total -= entry[2]
