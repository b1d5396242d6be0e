"""Memory that is free again, back to the system: the C library of Linux keeps it, for each thread that ever allocated.

A server answers every request in a new thread. Left alone, it held three times as much as the log that it had read
(measured). Elsewhere these functions do nothing.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 256 * 2**10


def give_large_blocks_back() -> None:
    """From here on, have the system take back a block of 256 KiB or more when it is freed.

    It is what the C library begins with, but with each block that is freed it puts the limit up, to 32 MiB in the end.
    """
    library = _library()
    if library is not None and hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_freed_memory_back() -> None:
    """Give back what was freed and is still kept."""
    library = _library()
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None
