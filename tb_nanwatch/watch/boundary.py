"""The one boundary where a failure is swallowed: nothing that goes wrong in watching may end training."""

from __future__ import annotations

import warnings
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
        return failed(_in_one_line(error))


class Boundary:
    """The boundary of one watch: each part of its work that fails is one warning, and the training goes on.

    Attributes:
        reason: why the last part failed, in one line; empty before any did.
    """

    def __init__(self) -> None:
        """Begin with nothing that failed."""
        self.reason = ""
        self._warned: set[str] = set()

    def attempt(self, part: str, action: Callable[[], _T], *, otherwise: _T) -> _T:
        """Do a part of the work.

        Args:
            part: what it is; it goes on with "tb_nanwatch could not".
            action: may fail in any way.
            otherwise: takes the place of the action's result where it fails.
        """
        # Nothing is made for a failure that does not come: this runs with every step.
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - likewise
            self.reason = _in_one_line(error)
        if part not in self._warned:
            self._warned.add(part)
            warnings.warn(f"tb_nanwatch could not {part} ({self.reason})", stacklevel=2)
        return otherwise


def _in_one_line(error: Exception) -> str:
    # An error from traced code begins with where it stood, over many lines, and ends with what it was.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines[0].endswith(":") else lines[0]) if lines else type(error).__name__
