"""A step that an operation's error ended: which errors are such, and what is added to them."""

from __future__ import annotations

import warnings
from typing import Final

import tensorflow as tf

from tb_nanwatch.diagnosis.notes import unfinished_sentence
from tb_nanwatch.schema.records import Alert, Finding, Replay, Verdict
from tb_nanwatch.watch.record.incident import finding_of
from tb_nanwatch.watch.replay.refused import cause_of

_NO_FAULT: Final = (tf.errors.OutOfRangeError, tf.errors.CancelledError, tf.errors.AbortedError)
"""How a data set ends, and how other operations end with one that failed."""
REPEATABLE: Final = (tf.errors.InvalidArgumentError, tf.errors.InternalError)
"""What an operation makes of its inputs, so that it happens again; memory that is full is no such thing."""


def is_fault(error: tf.errors.OpError) -> bool:
    """Return whether an error says that a step failed: a data set that is at its end ends no step."""
    return not isinstance(error, _NO_FAULT)


def error_line(error: tf.errors.OpError) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {cause_of(error)}"


def findings_of(found: Replay | None) -> tuple[Finding, ...]:
    """Return what a replay found non-finite of a step that left no row; nothing where it found nothing."""
    return () if found is None or not found.chains else (finding_of(found.chains[0][0]),)


def text_of(alert: Alert, verdict: Verdict) -> str:
    """Return what was found of a step that an error ended."""
    found = verdict.text if alert.findings else unfinished_sentence(alert)
    return " ".join([found, *(alert.replay.notes if alert.replay else ())])


def tell_user(error: tf.errors.OpError, text: str, logdir: str) -> None:
    """Add a text to the error that ended a step: as a note, or before Python 3.11 as a warning."""
    whole = f"tb_nanwatch: {text} For more: nanwatch {logdir}"
    if hasattr(error, "add_note"):
        error.add_note(whole)
    else:
        warnings.warn(whole, stacklevel=2)
