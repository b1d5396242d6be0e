"""The error tree.

::

    NanWatchError
    ├── NonFiniteError      training met NaN or Inf, and the policy raises (also a RuntimeError)
    ├── SetupError          a watch is used in a way that cannot work (also a ValueError)
    ├── RecordError         a stored message does not decode, or a record contradicts itself (also a ValueError)
    │   └── SchemaError     a newer major version of the schema wrote the log
    └── LogdirError         a directory cannot be read as a logdir (also an OSError)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tb_nanwatch.schema.records import Alert, Verdict


class NanWatchError(Exception):
    """Root of every error that tb_nanwatch raises on purpose."""

    # AutoGraph re-raises an error of a traced step unchanged only if its constructor is that of Exception.
    __init__ = Exception.__init__


class NonFiniteError(NanWatchError, RuntimeError):
    """Training met NaN or Inf, and the policy raises: ``"raise"``, or ``"skip"`` after too many bad steps.

    The update of the bad step was withheld, so every variable still has its value from before that step. There is one
    exception: an update that itself made the variables bad. The message then says since which step the weights are
    lost.

    Attributes:
        verdict: the answer: the first bad step, its layer, operation and source line, and likely causes. The message
            is its text.
        alert: the evidence for the verdict; ``None`` if tb_nanwatch itself failed before there was any.

    Example:
        Read where the first bad value arose::

            try:
                train_step(x, y)
            except tb_nanwatch.NonFiniteError as error:
                first = error.verdict.first
                print(first.step, first.layer, first.op, first.source)
    """

    def __init__(self, message: str, *, verdict: Verdict, alert: Alert | None) -> None:
        """Carry the verdict and its evidence to the code that catches the error."""
        super().__init__(message)
        self.verdict = verdict
        self.alert = alert


class SetupError(NanWatchError, ValueError):
    """A watch is used in a way that cannot work; the message says what must hold and what came."""


class RecordError(NanWatchError, ValueError):
    """A stored message does not decode, or a record contradicts itself."""


class SchemaError(RecordError):
    """A newer major version of the schema wrote the log."""


class LogdirError(NanWatchError, OSError):
    """A directory cannot be read as a logdir."""
