"""The verdict on a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from weakref import WeakKeyDictionary

from tb_nanwatch.diagnosis.causes import Clues, likely_causes
from tb_nanwatch.diagnosis.notes import notes_on
from tb_nanwatch.diagnosis.origin import First, first_of_run
from tb_nanwatch.diagnosis.run_log import RunLog, SessionLog, skipped_steps
from tb_nanwatch.diagnosis.sentences import origin_sentence
from tb_nanwatch.diagnosis.signs import Signs, warnings_about
from tb_nanwatch.schema import records
from tb_nanwatch.schema.records import Link, Status, Verdict

_MAYBE_NOT_FIRST: Final = "Part of the log could not be read: an earlier bad step may be missing."
_MAYBE_LOST: Final = "What was found in that step may be in the part that could not be read, so no cause is given."
_FIRSTS: Final = WeakKeyDictionary[RunLog, First | None]()


def diagnose(log: RunLog) -> Verdict:
    """Return the verdict on a run: finite, or the first bad step and its origin.

    Args:
        log: sessions in order. The first bad step is the first by session, then by step. So a restarted run keeps the
            verdict on the session that failed first. Warnings are about that session, or about the last session of a
            finite run.

    Returns:
        A verdict with the status ``incomplete`` if a part of the log could not be read and the rest is finite.
    """
    first = _first_of(log)
    if first is not None:
        return _nonfinite(log, first)
    steps = _steps_seen(log)
    warnings = warnings_about(Signs(log.sessions[-1])) if log.sessions else ()
    return Verdict(
        run=log.run,
        status=_status(log, steps, warnings),
        skipped_steps=_skipped_steps(log),
        text=_finite_sentence(log, steps, warnings),
        steps_seen=steps,
        warnings=warnings,
        problems=(*log.problems, *log.remarks),
        unreadable=log.problems,
    )


def deciding_session(log: RunLog) -> SessionLog | None:
    """Return the session that the verdict is about: the session of the first bad step, else the last session."""
    first = _first_of(log)
    if first is not None:
        return first.session
    return log.sessions[-1] if log.sessions else None


def _first_of(log: RunLog) -> First | None:
    # Every route needs this first. For a long log it takes longer than the rest of the answer.
    if log not in _FIRSTS:
        _FIRSTS[log] = first_of_run(log)
    return _FIRSTS[log]


def _nonfinite(log: RunLog, first: First) -> Verdict:
    # Without the bad step: its norms may be large for the same reason as its NaN.
    before = Signs(first.session.before(first.origin.step), is_before_bad=True)
    # Without a replay, a cause depends on findings that are absent. In a damaged log they may only be lost.
    is_cause_open = bool(log.problems) and first.origin.evidence == "records"
    lost = (*((_MAYBE_NOT_FIRST,) if log.problems else ()), *((_MAYBE_LOST,) if is_cause_open else ()))
    return Verdict(
        run=log.run,
        status="nonfinite",
        skipped_steps=_skipped_steps(log),
        text=origin_sentence(first.origin),
        steps_seen=_steps_seen(log),
        first=first.origin,
        chain=first.chains[0] if first.chains else (),
        other_chains=tuple(map(_without_stack, first.chains[1:])),
        notes=(*notes_on(first), *lost),
        warnings=warnings_about(before),
        causes=() if is_cause_open else likely_causes(Clues(first, before)),
        problems=(*log.problems, *log.remarks),
        unreadable=log.problems,
    )


def _without_stack(chain: tuple[Link, ...]) -> tuple[Link, ...]:
    return tuple(replace(link, stack=()) for link in chain)


def _skipped_steps(log: RunLog) -> int:
    return sum(skipped_steps(session.series) for session in log.sessions)


def _steps_seen(log: RunLog) -> int:
    return sum(session.steps_seen for session in log.sessions)


def _status(log: RunLog, steps: int, warnings: tuple[records.Warning, ...]) -> Status:
    if log.problems:
        return "incomplete"
    if not steps and not warnings:
        return "empty"
    return "warning" if warnings else "finite"


def _finite_sentence(log: RunLog, steps: int, warnings: tuple[records.Warning, ...]) -> str:
    return " ".join([_finite_text(log, steps), *(warning.text for warning in warnings)])


def _finite_text(log: RunLog, steps: int) -> str:
    if not steps:
        return "No step of this run could be read." if log.problems else "No step has been recorded yet."
    if log.problems:
        read = "the 1 step that was read is" if steps == 1 else f"the {steps:,} steps that were read are"
        return f"Part of the log could not be read; {read} finite{_left_out(log)}."
    return f"Finite in all {steps:,} steps{_left_out(log)}."


def _left_out(log: RunLog) -> str:
    skipped = _skipped_steps(log)
    if not skipped:
        return ""
    return f"; the update of {skipped:,} was left out, as the gradients overflowed for their loss scale"
