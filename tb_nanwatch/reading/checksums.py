"""The checksum of every record in an event file, where TensorBoard reads it without TensorFlow."""

from __future__ import annotations

import google_crc32c
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

_ROTATED_BY = 15
_ADDED = 0xA282EAD8
_32_BITS = 0xFFFFFFFF


def masked_checksum(data: bytes) -> int:
    """Return the checksum of a record as event files hold it: CRC-32C, rotated, and a constant added.

    Example:
        >>> hex(masked_checksum(b"123456789"))
        '0xc78ab0e5'
    """
    checksum: int = google_crc32c.value(data)
    rotated = checksum >> _ROTATED_BY | checksum << (32 - _ROTATED_BY)
    return (rotated + _ADDED) & _32_BITS


def take_checksums_fast() -> None:
    """Take checksums in C for the rest of the process: TensorBoard's own Python takes that of 6 MB in a second."""
    pywrap_tensorflow.masked_crc32c = masked_checksum
