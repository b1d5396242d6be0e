"""From what was read of a run to its verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from weakref import WeakKeyDictionary

from tb_nanwatch.diagnosis.accumulation import find_sum
from tb_nanwatch.diagnosis.causes import Evidence, likely_causes
from tb_nanwatch.diagnosis.notes import notes_on, unfinished_sentence
from tb_nanwatch.diagnosis.origin import First, first_of_run
from tb_nanwatch.diagnosis.run_log import RunLog, SessionLog, skipped_steps
from tb_nanwatch.diagnosis.sentences import origin_sentence
from tb_nanwatch.diagnosis.signs import Explosion, find_explosion, find_frozen
from tb_nanwatch.schema import records
from tb_nanwatch.schema.records import Alert, Link, Status, Verdict

_MAYBE_NOT_FIRST: Final = "Part of the log could not be read: an earlier bad step may be missing."
_MAYBE_LOST: Final = "What was found in that step may be in the part that could not be read, so no cause is given."
_FIRSTS: Final = WeakKeyDictionary[RunLog, First | None]()


def diagnose(log: RunLog) -> Verdict:
    """Return the verdict on a run: whether it stayed finite, else which step and which place were first.

    Args:
        log: sessions in order. The first bad step counts by session, then by step, so a run that was
            restarted keeps the verdict on the session that failed first. Warnings are about that session; of
            a finite run, about the last.

    Returns:
        ``incomplete`` where something of the log could not be read and nothing non-finite is known.
    """
    first = _first_of(log)
    if first is not None:
        return _nonfinite(log, first)
    steps = _steps_seen(log)
    warnings = _warnings(log.sessions[-1], find_explosion(log.sessions[-1])) if steps else _last_unfinished(log)
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
    """Return the session that the verdict is about: that of the first bad step, else the last one."""
    first = _first_of(log)
    if first is not None:
        return first.session
    return log.sessions[-1] if log.sessions else None


def _first_of(log: RunLog) -> First | None:
    # Every answer about a run begins with this, and of a long log it takes longer than the rest of the answer.
    if log not in _FIRSTS:
        _FIRSTS[log] = first_of_run(log)
    return _FIRSTS[log]


def _nonfinite(log: RunLog, first: First) -> Verdict:
    # The bad step's own norms may have the origin that its NaN has.
    before = first.session.before(first.origin.step)
    explosion = find_explosion(before, is_before_bad=True)
    # Without a replay a cause rests on what was not found, and here that may be lost.
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
        warnings=_warnings(before, explosion),
        causes=() if is_cause_open else likely_causes(Evidence(first, explosion, find_sum(before))),
        problems=(*log.problems, *log.remarks),
        unreadable=log.problems,
    )


def _without_stack(chain: tuple[Link, ...]) -> tuple[Link, ...]:
    return tuple(replace(link, stack=()) for link in chain)


def _warnings(session: SessionLog, explosion: Explosion | None) -> tuple[records.Warning, ...]:
    total = find_sum(session)
    found = (
        explosion.warning if explosion else None,
        find_frozen(session),
        total.warning if total is not None and total.grows else None,
        *map(_unfinished, session.unfinished[-1:]),
    )
    return tuple(warning for warning in found if warning is not None)


def _last_unfinished(log: RunLog) -> tuple[records.Warning, ...]:
    return tuple(_unfinished(alert) for session in log.sessions[-1:] for alert in session.unfinished[-1:])


def _unfinished(alert: Alert) -> records.Warning:
    notes = alert.replay.notes if alert.replay and not alert.findings else ()
    return records.Warning("unfinished-step", alert.step, None, " ".join([unfinished_sentence(alert), *notes]))


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
    if not steps:
        nothing = "No step of this run could be read." if log.problems else "No step has been recorded yet."
        return " ".join([nothing, *(warning.text for warning in warnings)])
    told = " ".join(["", *(warning.text for warning in warnings)])
    if log.problems:
        read = "the 1 step that was read is" if steps == 1 else f"the {steps:,} steps that were read are"
        return f"Part of the log could not be read; {read} finite{_left_out(log)}.{told}"
    return f"Finite in all {steps:,} steps{_left_out(log)}.{told}"


def _left_out(log: RunLog) -> str:
    skipped = _skipped_steps(log)
    if not skipped:
        return ""
    return f"; the update of {skipped:,} was left out, as the gradients overflowed for their loss scale"
