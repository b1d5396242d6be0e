"""The one boundary where a failure is swallowed: nothing that goes wrong in watching may end training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def attempt(action: Callable[[], _T], *, failed: Callable[[str], _T]) -> _T:
    """Do something, and where it fails make do with less.

    Args:
        action: may fail in any way.
        failed: told what went wrong, in one line; its result takes the place of the action's.

    Returns:
        What either returns.
    """
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - a decision: see above
        lines = str(error).strip().splitlines()
        # An error from traced code begins with where it stood, over many lines, and ends with what it was.
        told = [line.strip() for line in lines if line.strip()]
        return failed((told[-1] if told[0].endswith(":") else told[0]) if told else type(error).__name__)
