"""Spans as protobuf messages: each column packed row by row, default bookkeeping values left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import cast

import numpy as np
import numpy.typing as npt

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema import nanwatch_pb2 as pb
from tb_nanwatch.schema.columns import MEASURED_DTYPE, column_dtype, default_column, stored_part
from tb_nanwatch.schema.records import Array, ColumnKey, IntArray, Series
from tb_nanwatch.schema.stats import BOOKKEEPING

_Shape = tuple[tuple[str, str, int, tuple[int, ...]], ...]


def chunk_message(series: Series, generation: int) -> pb.SpanChunk:
    """Encode spans as a message. Bookkeeping columns store only values that differ from the default."""
    places_by_array: dict[tuple[str, int], Sequence[int]] = {}
    columns = []
    for key, column in series.columns.items():
        array = key.keeps, id(column)
        if array not in places_by_array:
            places_by_array[array] = _places_to_store(key, column, series)
        if len(places_by_array[array]):
            columns.append(_column_message(key, column, places_by_array[array]))
    return pb.SpanChunk(
        first_step=series.first_step.tolist(),
        last_step=series.last_step.tolist(),
        columns=columns,
        generation=generation,
    )


def decode_messages(messages: Sequence[pb.SpanChunk]) -> Series:
    """Decode messages with equal columns and ascending steps as one series.

    Raises:
        RecordError: if the sizes in a message disagree, or its steps are out of order.
    """
    _check_columns(messages[0])
    bytes_per_span = [_stored_width(column) * column_dtype(column.keeps).itemsize for column in messages[0].columns]
    for message in messages:
        _check_sizes(message, bytes_per_span)
    first = np.fromiter(chain.from_iterable(message.first_step for message in messages), np.int64)
    last = np.fromiter(chain.from_iterable(message.last_step for message in messages), np.int64)
    columns: dict[ColumnKey, Array] = {}
    for number, column in enumerate(messages[0].columns):
        key = ColumnKey(column.stat, column.keeps)
        packed = b"".join([message.columns[number].values for message in messages])
        values = np.frombuffer(packed, column_dtype(key.keeps)).reshape(len(first), _stored_width(column))
        columns[key] = values if not column.places else _spread(column, values, first_step=first, last_step=last)
    _restore_defaults(columns, first_step=first, last_step=last)
    return Series(first, last, columns)


def decode_in_groups(messages: Sequence[pb.SpanChunk]) -> Iterator[tuple[int, Series | ValueError]]:
    """Decode messages; join neighbours that have the same columns and ascending steps.

    Yields:
        The number of messages in a group and their series, or 1 and the error of a message that does not decode.
    """
    for group in _groups(messages):
        series = _series_or_error(group)
        if isinstance(series, Series):
            yield len(group), series
        else:
            yield from ((1, _series_or_error([message])) for message in group)


def _series_or_error(messages: Sequence[pb.SpanChunk]) -> Series | ValueError:
    try:
        return decode_messages(messages)
    # RecordError is a ValueError; NumPy raises other ValueErrors for columns that do not fit together.
    except ValueError as error:
        return error


def _groups(messages: Sequence[pb.SpanChunk]) -> Iterator[list[pb.SpanChunk]]:
    group: list[pb.SpanChunk] = []
    group_shape, end = _Shape(), -1
    for message in messages:
        shape = _shape(message)
        if group and (shape != group_shape or not message.first_step or message.first_step[0] <= end):
            yield group
            group = []
        group.append(message)
        group_shape, end = shape, message.last_step[-1] if message.last_step else -1
    if group:
        yield group


def _shape(message: pb.SpanChunk) -> _Shape:
    return tuple((column.stat, column.keeps, column.width, tuple(column.places)) for column in message.columns)


def _check_columns(message: pb.SpanChunk) -> None:
    """Reject columns that no session writes.

    A damaged width is the worst: the reader would allocate that many values.
    """
    keys = [ColumnKey(column.stat, column.keeps) for column in message.columns]
    if len(set(keys)) != len(keys):
        repeated = Counter(keys).most_common(1)[0][0]
        raise RecordError(f"a chunk must have each column once; got {repeated} more than once")
    widths = {column.stat: column.width for column in message.columns if not column.places}
    for key, column in zip(keys, message.columns, strict=True):
        if column.places and (column.keeps not in BOOKKEEPING or max(column.places) >= column.width):
            raise RecordError(f"places must be of a bookkeeping column, below its width; got {key} of {column.width}")
        if column.width != widths.get(column.stat, column.width if not message.first_step else -1):
            raise RecordError(f"column {key} must be as wide as the others of its statistic; got {column.width}")


def _check_sizes(message: pb.SpanChunk, bytes_per_span: Sequence[int]) -> None:
    spans, ends = len(message.first_step), len(message.last_step)
    if spans != ends:
        raise RecordError(f"a chunk must have a first and a last step for each span; got {spans} and {ends}")
    for column, size in zip(message.columns, bytes_per_span, strict=True):
        if len(column.values) != spans * size:
            key, dtype = ColumnKey(column.stat, column.keeps), column_dtype(column.keeps)
            expected = f"{spans} x {_stored_width(column)} values of {dtype}"
            raise RecordError(f"column {key} must hold {expected}; got {len(column.values)} bytes")


def _stored_width(column: pb.Column) -> int:
    return len(column.places) or column.width


def _places_to_store(key: ColumnKey, column: Array, series: Series) -> Sequence[int]:
    if key.keeps not in BOOKKEEPING:
        return range(column.shape[1])
    stored = stored_part(column)
    default = default_column(key.keeps, first_step=series.first_step, last_step=series.last_step, width=1)
    places: list[int] = np.flatnonzero((stored != default).any(axis=0)).tolist()
    return range(column.shape[1]) if places and stored is not column else places


def _column_message(key: ColumnKey, column: Array, places: Sequence[int]) -> pb.Column:
    is_whole = len(places) == column.shape[1]
    packed = _packed(key, column if is_whole else column[:, places])
    return pb.Column(
        stat=key.stat, keeps=key.keeps, width=column.shape[1], values=packed, places=() if is_whole else places
    )


def _packed(key: ColumnKey, column: Array) -> bytes:
    dtype = column_dtype(key.keeps)
    if dtype == MEASURED_DTYPE and column.dtype != np.float32:
        # Clip finite float64 values to the range of float32: an Inf in a log then always comes from an Inf.
        limit = float(np.finfo(np.float32).max)
        wide = cast("npt.NDArray[np.float64]", column)
        column = np.where(np.isfinite(wide), np.clip(wide, -limit, limit), wide)
    return np.ascontiguousarray(column, dtype).tobytes()


def _spread(column: pb.Column, values: Array, *, first_step: IntArray, last_step: IntArray) -> Array:
    whole = default_column(column.keeps, first_step=first_step, last_step=last_step, width=column.width).copy()
    whole[:, list(column.places)] = values
    return whole


def _restore_defaults(columns: dict[ColumnKey, Array], *, first_step: IntArray, last_step: IntArray) -> None:
    widths = {key.stat: column.shape[1] for key, column in columns.items()}
    for stat, width in widths.items():
        for keeps in BOOKKEEPING:
            key = ColumnKey(stat, keeps)
            if key not in columns:
                columns[key] = default_column(keeps, first_step=first_step, last_step=last_step, width=width)
