"""The checksums of an event file, and the search for the next record after damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import google_crc32c
import numpy as np
import numpy.typing as npt

LENGTH_BYTES: Final = 8
CHECKSUM_BYTES: Final = 4
HEAD_BYTES: Final = LENGTH_BYTES + CHECKSUM_BYTES
"""Size of the head of a record: its length, and the checksum of the length."""
_ROTATED_BY: Final = 15
_ADDED: Final = 0xA282EAD8
_32_BITS: Final = 0xFFFFFFFF

_Words = npt.NDArray[np.uint32]


def masked_checksum(data: bytes) -> int:
    """Return the checksum of a record in an event file: CRC-32C, rotated, plus a constant.

    Example:
        >>> hex(masked_checksum(b"123456789"))
        '0xc78ab0e5'
    """
    checksum: int = google_crc32c.value(data)
    rotated = checksum >> _ROTATED_BY | checksum << (32 - _ROTATED_BY)
    return (rotated + _ADDED) & _32_BITS


def heads_in(data: bytes) -> Iterator[int]:
    """Yield each offset at which eight bytes are followed by their own checksum, as at the start of a record.

    The checksum is linear: that of eight bytes is the exclusive or of the contribution of each byte and the checksum of
    eight zeros. So NumPy checks all offsets at once; 1 MB takes 20 ms.

    Args:
        data: any part of an event file.
    """
    count = len(data) - HEAD_BYTES + 1
    if count <= 0:
        return
    numbers = np.frombuffer(data, np.uint8)
    checksums = np.full(count, _CHECKSUM_OF_ZEROS, np.uint32)
    for place, table in enumerate(_TABLES):
        checksums ^= table[numbers[place : place + count]]
    masked = (checksums >> np.uint32(_ROTATED_BY)) | (checksums << np.uint32(32 - _ROTATED_BY))
    masked += np.uint32(_ADDED)
    stored = np.zeros(count, np.uint32)
    for place in range(CHECKSUM_BYTES):
        begin = LENGTH_BYTES + place
        stored |= numbers[begin : begin + count].astype(np.uint32) << np.uint32(8 * place)
    yield from np.flatnonzero(masked == stored).tolist()


def _table(place: int) -> _Words:
    """Return the contribution of each value of the byte at ``place`` to the checksum of eight bytes."""
    texts = (bytes(place) + bytes([value]) + bytes(LENGTH_BYTES - 1 - place) for value in range(256))
    return np.array([google_crc32c.value(text) ^ _CHECKSUM_OF_ZEROS for text in texts], np.uint32)


_CHECKSUM_OF_ZEROS: Final[int] = google_crc32c.value(bytes(LENGTH_BYTES))
_TABLES: Final = [_table(place) for place in range(LENGTH_BYTES)]
