"""The decoding of a tag's messages. A message that does not decode is reported and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tb_nanwatch.errors import RecordError, SchemaError
from tb_nanwatch.reading.tags import Part, Tag
from tb_nanwatch.schema import wire
from tb_nanwatch.schema.records import Alert, Header, Series

Record = Header | Series | Alert

_DECODERS: Final[dict[Part, Callable[[bytes], Record]]] = {
    "header": wire.decode_header,
    "alerts": wire.decode_alert,
}


@dataclass(frozen=True, eq=False)
class Datum:
    """One event of a tag from a data provider: the time of writing, in seconds, and a tensor."""

    wall_time: float
    tensor: npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Written:
    """A record and the time of its writing, in seconds."""

    wall_time: float
    record: Record


@dataclass(frozen=True, eq=False)
class TagContent:
    """The decoded content of a tag.

    Attributes:
        written: its records, the oldest first. Consecutive spans are joined and have the time of the last one.
        problems: messages that could not be decoded, a sentence each.
        remarks: other remarks, a sentence each.
        is_too_new: whether a newer major version wrote it. Then its whole session is unreliable.
        size: size of the messages, in bytes.
    """

    written: tuple[Written, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    is_too_new: bool = False
    size: int = 0


def decode_tag(tag: Tag, data: Iterable[Datum]) -> TagContent:
    """Decode the events of a tag.

    Args:
        tag: determines the type of the messages.
        data: scalar string tensors, in any order.

    Returns:
        The records of all messages that decode; the problems report the others.
    """
    ordered = sorted(data, key=lambda datum: datum.wall_time)
    # Each incomplete span replaces the one before.
    events = [(datum.wall_time, _message(datum)) for datum in (ordered[-1:] if tag.part == "rest" else ordered)]
    messages = [(wall_time, message) for wall_time, message in events if isinstance(message, bytes)]
    records = list(_spans(messages) if tag.part in ("spans", "rest") else _records(tag.part, messages))
    written = [Written(wall_time, record) for wall_time, record in records if not isinstance(record, ValueError)]
    errors = [error for _, error in [*events, *records] if isinstance(error, ValueError)]
    problems = dict.fromkeys(f"{tag.name}: {str(error).removesuffix('.')}." for error in errors)
    is_too_new = any(isinstance(error, SchemaError) for error in errors)
    versions = (wire.newer_version(data) for _, data in messages) if tag.part == "header" else ()
    remarks = dict.fromkeys(f"{tag.name}: {version}." for version in versions if version is not None)
    size = sum(len(data) for _, data in messages)
    return TagContent(tuple(written), tuple(problems), tuple(remarks), is_too_new, size)


def _spans(messages: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, Series | ValueError]]:
    decoded = 0
    for count, record in wire.decode_chunks([data for _, data in messages]):
        decoded += count
        yield messages[decoded - 1][0], record


def _records(part: Part, messages: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, Record | ValueError]]:
    for wall_time, data in messages:
        yield wall_time, _record_or_error(part, data)


def _record_or_error(part: Part, data: bytes) -> Record | ValueError:
    try:
        return _DECODERS[part](data)
    # RecordError is a ValueError; NumPy raises other ValueErrors for columns that do not fit together.
    except ValueError as error:
        return error


def _message(datum: Datum) -> bytes | ValueError:
    message: object = datum.tensor.item() if datum.tensor.size == 1 else None
    if isinstance(message, bytes):
        return message
    found = f"{datum.tensor.dtype} of shape {datum.tensor.shape}"
    error: ValueError = RecordError(f"a stored message must be one string of bytes; found {found}")
    return error
