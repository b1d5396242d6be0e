"""Columns that are joined only when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np

from tb_nanwatch.schema.defaults import is_shared
from tb_nanwatch.schema.records import Array, ColumnKey


class PiecedColumns(Mapping[ColumnKey, Array]):
    """The columns of a long series.

    One bad step in ten million makes of a bookkeeping column that was shared by all variables one that is not; joined,
    those of a log are twice as large as all that was measured. So they stay in pieces, nearly all of them shared.

    Attributes:
        whole: the columns that are there.
        pieces: of the others, each as long as those of all the others.
    """

    def __init__(self, whole: Mapping[ColumnKey, Array], pieces: Mapping[ColumnKey, Sequence[Array]]) -> None:
        """Take columns and pieces of columns."""
        self.whole, self.pieces = whole, pieces

    def __getitem__(self, key: ColumnKey) -> Array:
        """Return a column, and join it for that."""
        return self.whole[key] if key in self.whole else concatenate_columns(self.pieces[key])

    def __contains__(self, key: object) -> bool:
        """Return whether there is such a column."""
        return key in self.whole or key in self.pieces

    def __iter__(self) -> Iterator[ColumnKey]:
        """Yield the keys."""
        yield from self.whole
        yield from self.pieces

    def __len__(self) -> int:
        """Return how many columns there are."""
        return len(self.whole) + len(self.pieces)

    def rows(self, selection: slice) -> PiecedColumns:
        """Return the rows of a slice without a step, of every column."""
        whole = {key: column[selection] for key, column in self.whole.items()}
        return PiecedColumns(whole, {key: _cut(pieces, selection) for key, pieces in self.pieces.items()})


def concatenate_columns(pieces: Sequence[Array]) -> Array:
    """Join pieces of one column; where in each one value of a span stands for all, it still does."""
    if all(map(is_shared, pieces)):
        joined = np.concatenate([piece[:, 0] for piece in pieces])
        return np.broadcast_to(joined[:, None], (len(joined), pieces[0].shape[1]))
    return np.concatenate(pieces)


def _cut(pieces: Sequence[Array], selection: slice) -> list[Array]:
    ends = list(accumulate(map(len, pieces)))
    first, last, _ = selection.indices(ends[-1])
    placed = zip(pieces, ends, strict=True)
    cut = [piece[max(0, first - end + len(piece)) : max(0, last - end + len(piece))] for piece, end in placed]
    return [piece for piece in cut if len(piece)] or cut[:1]
