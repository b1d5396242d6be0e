"""The calls that measured the micro-batches of the current step, so that a bad one can be replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tb_nanwatch.watch.graphs import is_tracing_loop
from tb_nanwatch.watch.record.batch import Call

MOST_CALLS: Final = 256
"""The most calls whose arguments are kept until their step updates. The variables do not change before it."""


class MicrobatchCalls:
    """Notes which functions measure micro-batches and which update, as they are traced or run eagerly."""

    def __init__(self) -> None:
        """Begin before the first call."""
        self._measuring: dict[object, int] = {}
        self._updating: set[object] = set()
        self._measured = 0
        self._current: Call | None = None
        self._rows = 0
        self._kept: list[tuple[Call, int]] = []

    def begin(self, call: Call | None) -> None:
        """Note which call runs; ``None`` if its arguments are unknown."""
        self._current, self._measured = call, 0

    def begin_trace(self) -> None:
        """Count what the call measures again: it is traced, perhaps not for the first time."""
        self._measured = 0

    def note_measure(self) -> None:
        """Note that the current call measures one more micro-batch, or part of one."""
        if self._current is not None:
            # The number of rounds of a TensorFlow loop is unknown.
            self._measured += not is_tracing_loop()
            self._measuring[self._current.function] = self._measured

    def note_update(self) -> None:
        """Note that the current call may update."""
        if self._current is not None:
            self._updating.add(self._current.function)

    def end(self, call: Call | None, rows_written: Callable[[], int]) -> None:
        """Keep a call that measured a micro-batch. Forget all calls once an update ran.

        Args:
            call: that has run.
            rows_written: returns the number of updates. It shows whether a function that both measures and may update
                did update.
        """
        if call is None or not self._measuring:
            self._kept.clear()
            return
        if self._has_updated(call, rows_written):
            self._kept.clear()
        elif call.function in self._measuring and len(self._kept) < MOST_CALLS:
            self._kept.append((call, self._measuring[call.function]))

    def bad(self, which: int, call: Call) -> Call | None:
        """Return the call that measured the bad micro-batch; ``None`` if it is unknown.

        Args:
            which: the number of micro-batches before it since the last update.
            call: that updates, and may have measured some micro-batches itself.
        """
        if not self._kept:
            return call
        own = self._measuring.get(call.function)
        calls = self._kept if own is None else [*self._kept, (call, own)]
        measured = 0
        for kept, more in calls:
            measured += more
            if which < measured or len(calls) == 1:
                return kept
        return None

    def _has_updated(self, call: Call, rows_written: Callable[[], int]) -> bool:
        if call.function not in self._updating:
            return False
        if call.function not in self._measuring:
            return True
        before, self._rows = self._rows, rows_written()
        return self._rows != before
