"""The driver: all that the loop needs from a way to train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.record.batch import StepCall
from tb_nanwatch.watch.replay import Evidence, ReplayLimits
from tb_nanwatch.watch.row.microbatches import MicrobatchStore


class Driver(Protocol):
    """What the loop needs from a way to train.

    A driver measures each step into the plan's ring, and after it calls
    :meth:`~tb_nanwatch.watch.drivers.loop.Loop.after_step`. The loop asks the driver about the steps that were bad.
    """

    @property
    def accumulation(self) -> MicrobatchStore | None:
        """The micro-batches of a step; ``None`` if it has none."""

    @property
    def last_call(self) -> StepCall | None:
        """The call of the step that ran last; ``None`` if its arguments are unknown."""

    def calls_of(self, call: StepCall) -> Sequence[StepCall]:
        """Return a call as each replica of this process made it."""

    def call_of_bad_step(self, call: StepCall | None) -> StepCall | None:
        """Return the call of the bad step that waits for the host, and make room for the next bad step's.

        Args:
            call: of the step that ran last; ``None`` if its arguments are unknown.

        Returns:
            The call with the bad replica's part of the batch; ``None`` if the arguments are unknown here.
        """

    def call_of_bad_microbatch(self, call: StepCall) -> StepCall | None:
        """Return the call of a step's first bad micro-batch; ``None`` if it is unknown.

        Args:
            call: that updates. It is returned where the step has no bad micro-batch.
        """

    def last_values(self) -> Sequence[Any]:
        """Return what gives each watched variable's value by ``numpy()``, in column order."""

    def replay(
        self, call: StepCall, evidence: Evidence, *, limits: ReplayLimits, logdir: str = "", dump: str | None = None
    ) -> Replay:
        """Replay a step; see :func:`tb_nanwatch.watch.replay.engine.replay`."""
