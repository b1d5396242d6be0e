"""Memory that is free again, back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def return_freed_memory() -> None:
    """Give back what was freed.

    The C library of Linux keeps it for each thread that ever allocated, and a server answers every request in a new
    one: after a long log was read, it held three times as much as the log (measured). Elsewhere this does nothing.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
