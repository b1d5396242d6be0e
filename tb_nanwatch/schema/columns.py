"""Columns of a series: their storage, their default values, and compact forms for long logs.

In most logs every step is measured and finite. The bookkeeping of such a log is one value per span. Stored as full
arrays, it would take twice the memory of everything measured. So a bookkeeping column can be *shared*: an array with
one stored value per span and a stride of 0 over the variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, cast

import numpy as np

from tb_nanwatch.schema.records import Array, ColumnKey, IntArray

_BOOKKEEPING_DTYPES: Final = {
    "count": np.dtype("<i8"),
    "nonfinite": np.dtype("<i8"),
    "first_nonfinite": np.dtype("<i8"),
    "kinds": np.dtype("u1"),
}
MEASURED_DTYPE: Final = np.dtype("<f4")


def column_dtype(keeps: str) -> np.dtype[np.generic]:
    """Return the dtype that stores a column: float32 for measured values, integers for bookkeeping."""
    return cast("np.dtype[np.generic]", _BOOKKEEPING_DTYPES.get(keeps, MEASURED_DTYPE))


def default_column(keeps: str, *, first_step: IntArray, last_step: IntArray, width: int) -> Array:
    """Return the values of a bookkeeping column that a log leaves out: all steps measured, all finite.

    Args:
        keeps: the bookkeeping part of the column's key.
        first_step: int64 ``[n]``.
        last_step: int64 ``[n]``.
        width: number of variables, tensors, or 1.

    Returns:
        ``[n, width]``, read-only and shared.
    """
    column = {
        "count": last_step - first_step + 1,
        "nonfinite": np.zeros_like(first_step),
        "first_nonfinite": np.full_like(first_step, -1),
        "kinds": np.zeros(len(first_step), np.uint8),
    }[keeps]
    return np.broadcast_to(column[:, None], (len(first_step), width))


def is_shared(column: Array) -> bool:
    """Return whether each span stores one value for all variables, as in :func:`default_column`."""
    return column.shape[1] > 1 and column.strides[1] == 0


def stored_part(column: Array) -> Array:
    """Return the values that a column stores: ``[n, 1]`` if it is shared, else the column itself."""
    return column[:, :1] if is_shared(column) else column


def concatenate_columns(pieces: Sequence[Array]) -> Array:
    """Concatenate pieces of one column; the result is shared if every piece is."""
    if all(map(is_shared, pieces)):
        joined = np.concatenate([piece[:, 0] for piece in pieces])
        return np.broadcast_to(joined[:, None], (len(joined), pieces[0].shape[1]))
    return np.concatenate(pieces)


class PiecedColumns(Mapping[ColumnKey, Array]):
    """The columns of a long series, some of them in pieces that are joined only on access.

    One bad step in ten million makes a bookkeeping column differ between variables. A single joined array for it would
    no longer be shared, and twice as large as everything measured. In pieces, nearly all of the column stays shared.

    Attributes:
        whole: the columns that are single arrays.
        pieces: the pieces of every other column.
    """

    def __init__(self, whole: Mapping[ColumnKey, Array], pieces: Mapping[ColumnKey, Sequence[Array]]) -> None:
        """Store whole columns and pieces of columns."""
        self.whole, self.pieces = whole, pieces

    def __getitem__(self, key: ColumnKey) -> Array:
        """Return a column; join its pieces if it has several."""
        return self.whole[key] if key in self.whole else concatenate_columns(self.pieces[key])

    def __contains__(self, key: object) -> bool:
        """Return whether the column exists, without joining it."""
        return key in self.whole or key in self.pieces

    def __iter__(self) -> Iterator[ColumnKey]:
        """Yield the keys."""
        yield from self.whole
        yield from self.pieces

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.whole) + len(self.pieces)

    def rows(self, selection: slice) -> PiecedColumns:
        """Return the selected rows of every column; the slice must have no step."""
        whole = {key: column[selection] for key, column in self.whole.items()}
        return PiecedColumns(whole, {key: _cut(pieces, selection) for key, pieces in self.pieces.items()})


def _cut(pieces: Sequence[Array], selection: slice) -> list[Array]:
    ends = list(accumulate(map(len, pieces)))
    first, last, _ = selection.indices(ends[-1])
    placed = zip(pieces, ends, strict=True)
    cut = [piece[max(0, first - end + len(piece)) : max(0, last - end + len(piece))] for piece, end in placed]
    return [piece for piece in cut if len(piece)] or cut[:1]
