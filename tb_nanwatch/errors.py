"""The error tree.

::

    NanWatchError
    ├── NonFiniteError      training met NaN or Inf and the policy is "raise" (also a RuntimeError)
    ├── SetupError          a watch was put to use in a way that cannot work (also a ValueError)
    ├── RecordError         a stored message does not decode, or a record contradicts itself (also a ValueError)
    │   └── SchemaError     a log was written by a newer major version of the schema
    └── LogdirError         a directory cannot be read as a logdir (also an OSError)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tb_nanwatch.schema.records import Alert, Verdict


class NanWatchError(Exception):
    """Root of every error that tb_nanwatch raises on purpose."""

    # AutoGraph hands an error out of a traced step as it is only if it is made as an Exception is.
    __init__ = Exception.__init__


class NonFiniteError(NanWatchError, RuntimeError):
    """Training met a non-finite value and the policy is ``"raise"``, or ``"skip"`` and nothing good is left.

    The update of the bad step was withheld: every variable still has the value it had before that step. The exception
    is an update that made the variables bad itself: the message then says since which step the weights are lost.

    Attributes:
        verdict: what was first, and where.
        alert: the evidence the verdict was drawn from; ``None`` where tb_nanwatch itself failed before there was any.
    """

    def __init__(self, message: str, *, verdict: Verdict, alert: Alert | None) -> None:
        """Carry the verdict and its evidence to whoever catches the error."""
        super().__init__(message)
        self.verdict = verdict
        self.alert = alert


class SetupError(NanWatchError, ValueError):
    """A watch was put to use in a way that cannot work."""


class RecordError(NanWatchError, ValueError):
    """A stored message does not decode, or a record contradicts itself."""


class SchemaError(RecordError):
    """A log was written by a newer major version of the schema."""


class LogdirError(NanWatchError, OSError):
    """A directory cannot be read as a logdir."""
