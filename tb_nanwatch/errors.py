"""The error tree.

::

    NanWatchError
    ├── NonFiniteError      training met NaN or Inf and the policy stops it (also a RuntimeError)
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
    """Training met a non-finite value and cannot go on under the policy.

    The policy is ``"raise"``, or it is ``"skip"`` and no good step is left.

    The update of the bad step did not run, so every variable keeps the value from before that step. There is one
    exception: an update that itself makes variables non-finite. The message then names the step from which the weights
    are lost.

    Attributes:
        verdict: the first non-finite value: its step, layer and operation.
        alert: the evidence for the verdict; ``None`` if tb_nanwatch itself failed before it had any.
    """

    def __init__(self, message: str, *, verdict: Verdict, alert: Alert | None) -> None:
        """Store the verdict and its evidence for the code that catches the error."""
        super().__init__(message)
        self.verdict = verdict
        self.alert = alert


class SetupError(NanWatchError, ValueError):
    """A watch is used in a way that cannot work."""


class RecordError(NanWatchError, ValueError):
    """A stored message does not decode, or a record contradicts itself."""


class SchemaError(RecordError):
    """A newer major version of the schema wrote the log."""


class LogdirError(NanWatchError, OSError):
    """A directory cannot be read as a logdir."""
