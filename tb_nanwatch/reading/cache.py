"""A cache of bounded size for several threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

_V = TypeVar("_V")


class StampedCache(Generic[_V]):
    """Keeps the newest value of each key as long as its stamp stays the same.

    When the total weight exceeds the budget, the least recently used values go first. Callers compute a value outside
    the lock, so two threads may compute the same value.
    """

    def __init__(self, budget: int, weigh: Callable[[_V], int]) -> None:
        self._budget, self._weigh = budget, weigh
        self._entries: OrderedDict[Hashable, tuple[Hashable, _V, int]] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def get(self, key: Hashable, stamp: Hashable) -> _V | None:
        """Return the value of ``key`` if it was stored with an equal ``stamp``."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry[0] != stamp:
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def newest(self, key: Hashable) -> _V | None:
        """Return the newest value of ``key``, whatever its stamp."""
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None else entry[1]

    def put(self, key: Hashable, stamp: Hashable, *, value: _V, makes_room: bool = True) -> None:
        """Store ``value`` instead of the old value of ``key``; keep it even if it alone exceeds the budget.

        Args:
            key: key of the value.
            stamp: state that the value was computed from.
            value: the value to store.
            makes_room: whether other values may go to make room. If not, a new key is stored only if there is room.
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
