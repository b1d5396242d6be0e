"""The layers of the runs that were looked at last, so that a zoom need not combine their variables again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import ref

from tb_nanwatch.reading.cache import StampedCache
from tb_nanwatch.reading.grouping import grouped
from tb_nanwatch.reading.thinning import only
from tb_nanwatch.schema.columns import stored_part
from tb_nanwatch.schema.records import Series, unique_arrays

_BYTES: Final = 24 * 2**20


class Layers:
    """Combines the variables of a series into layers, and keeps what came of it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._kept = StampedCache[Series](_BYTES, _bytes_of)

    def of(self, series: Series, stat: str, *, keeps: Sequence[str], groups: Sequence[Sequence[int]]) -> Series:
        """Return one statistic of a session's series by layer; see :func:`~tb_nanwatch.reading.grouping.grouped`."""
        key = id(series), stat, tuple(keeps), tuple(map(tuple, groups))
        # A series that is no more may have left its number to another one; held, that of a run that goes on would be
        # kept once more with every drain.
        stamp = ref(series)
        kept = self._kept.get(key, stamp)
        if kept is None:
            kept = grouped(only(series, [stat], keeps=keeps), stat, groups)
            self._kept.put(key, stamp, value=kept)
        return kept


def _bytes_of(series: Series) -> int:
    return 1 + sum(stored_part(column).nbytes for column in unique_arrays(series.columns))
