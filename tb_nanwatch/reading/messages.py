"""What a tag holds, decoded; what does not decode is named and left out."""

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
    """One event of a tag as a data provider gives it: when it was written, in seconds, and a tensor."""

    wall_time: float
    tensor: npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Written:
    """A record, and when it was written, in seconds."""

    wall_time: float
    record: Record


@dataclass(frozen=True, eq=False)
class TagContent:
    """What a tag holds.

    Attributes:
        written: its records, the oldest first; spans that go together as one, written when the last of them was.
        problems: what could not be read, a sentence each.
        remarks: what else there is to say about it, a sentence each.
        is_too_new: a newer major version wrote it, so that nothing of its session may be taken at its word.
        size: in bytes.
    """

    written: tuple[Written, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    is_too_new: bool = False
    size: int = 0


def decode_tag(tag: Tag, data: Iterable[Datum]) -> TagContent:
    """Decode the events of a tag.

    Args:
        tag: says which message they hold.
        data: each a scalar string tensor, in any order.

    Returns:
        What decodes; what does not is among the problems.
    """
    ordered = sorted(data, key=lambda datum: datum.wall_time)
    # Each span that was not full stands in place of the one before.
    found = [(datum.wall_time, _message(datum)) for datum in (ordered[-1:] if tag.part == "rest" else ordered)]
    messages = [(wall_time, message) for wall_time, message in found if isinstance(message, bytes)]
    records = list(_spans(messages) if tag.part in ("spans", "rest") else _records(tag.part, messages))
    written = [Written(wall_time, record) for wall_time, record in records if not isinstance(record, ValueError)]
    wrong = [message for _, message in [*found, *records] if isinstance(message, ValueError)]
    problems = dict.fromkeys(f"{tag.name}: {str(error).removesuffix('.')}." for error in wrong)
    is_too_new = any(isinstance(error, SchemaError) for error in wrong)
    versions = (wire.newer_version(data) for _, data in messages) if tag.part == "header" else ()
    remarks = dict.fromkeys(f"{tag.name}: {version}." for version in versions if version is not None)
    size = sum(len(data) for _, data in messages)
    return TagContent(tuple(written), tuple(problems), tuple(remarks), is_too_new, size)


def _spans(messages: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, Series | ValueError]]:
    read = 0
    for many, record in wire.decode_chunks([data for _, data in messages]):
        read += many
        yield messages[read - 1][0], record


def _records(part: Part, messages: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, Record | ValueError]]:
    for wall_time, data in messages:
        yield wall_time, _decoded(part, data)


def _decoded(part: Part, data: bytes) -> Record | ValueError:
    try:
        return _DECODERS[part](data)
    # A RecordError is one; NumPy raises others over columns that do not go together.
    except ValueError as error:
        return error


def _message(datum: Datum) -> bytes | ValueError:
    message: object = datum.tensor.item() if datum.tensor.size == 1 else None
    if isinstance(message, bytes):
        return message
    found = f"{datum.tensor.dtype} of shape {datum.tensor.shape}"
    error: ValueError = RecordError(f"a stored message must be one string of bytes; found {found}")
    return error
