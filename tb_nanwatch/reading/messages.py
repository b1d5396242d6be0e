"""What a tag holds, decoded; what does not decode is named and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    "spans": wire.decode_series,
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
        written: its records, the oldest first.
        problems: what could not be read, a sentence each.
        is_too_new: a newer major version wrote it, so that nothing of its session may be taken at its word.
        size: in bytes.
    """

    written: tuple[Written, ...] = ()
    problems: tuple[str, ...] = ()
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
    written: list[Written] = []
    problems: list[str] = []
    size, is_too_new = 0, False
    for datum in sorted(data, key=lambda datum: datum.wall_time):
        record = _decoded(tag, datum)
        if isinstance(record, ValueError):
            problems.append(f"{tag.name}: {str(record).removesuffix('.')}.")
            is_too_new |= isinstance(record, SchemaError)
        else:
            written.append(Written(datum.wall_time, record))
            size += len(datum.tensor.item())
    return TagContent(tuple(written), tuple(dict.fromkeys(problems)), is_too_new, size)


def _decoded(tag: Tag, datum: Datum) -> Record | ValueError:
    try:
        return _DECODERS[tag.part](_message(datum))
    # A RecordError is one; NumPy raises others over columns that do not go together.
    except ValueError as error:
        return error


def _message(datum: Datum) -> bytes:
    message = datum.tensor.item() if datum.tensor.size == 1 else None
    if isinstance(message, bytes):
        return message
    found = f"{datum.tensor.dtype} of shape {datum.tensor.shape}"
    raise RecordError(f"a stored message must be one string of bytes; found {found}")
