"""The boundary: the one place that catches every error, because a failure of the watch must not end training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def attempt(action: Callable[[], _T], *, failed: Callable[[str], _T]) -> _T:
    """Run an action, and if it fails return a replacement for its result.

    Args:
        action: may fail in any way.
        failed: gets the reason in one line, and returns the replacement.

    Returns:
        The result of the action, or the replacement.
    """
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - a decision: see the module
        return failed(_in_one_line(error))


class Boundary:
    """The boundary of one watch: each part of its work that fails gives one warning, and training goes on.

    Attributes:
        reason: why a part failed last, in one line; empty before the first failure.
    """

    def __init__(self) -> None:
        """Begin without a failure."""
        self.reason = ""
        self._warned: set[str] = set()

    def attempt(self, part: str, action: Callable[[], _T], *, otherwise: _T) -> _T:
        """Run a part of the work, and warn if it fails for the first time.

        Args:
            part: completes the sentence "tb_nanwatch could not ...".
            action: may fail in any way.
            otherwise: replaces the result of an action that fails.
        """
        # This runs with every step, so it prepares nothing for a failure.
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - likewise
            self.reason = _in_one_line(error)
        if part not in self._warned:
            self._warned.add(part)
            warnings.warn(f"tb_nanwatch could not {part} ({self.reason})", stacklevel=2)
        return otherwise


def _in_one_line(error: Exception) -> str:
    # An error from traced code begins with many lines about its place, and ends with its message.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines[0].endswith(":") else lines[0]) if lines else type(error).__name__
