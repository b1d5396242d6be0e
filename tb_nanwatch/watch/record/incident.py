"""Reports on a bad step in the program that trains: the same verdict that the viewing side reads from the log."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.diagnosis.notes import lost_weights
from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Alert, Finding, Header, Link, Phase, Replay, Role, Series, Variable, Verdict
from tb_nanwatch.watch.record.history import NO_STEPS

_ROLE_OF_PHASE: Final[dict[Phase, Role]] = {
    "input": "input",
    "weights": "weight",
    "forward": "tensor",
    "loss": "loss",
    "backward": "gradient",
    "clip": "clipped",
    "update": "tensor",
    "state": "state",
}


def verdict_of_alert(header: Header, alert: Alert, *, steps_seen: int, run: str) -> Verdict:
    """Return the verdict on a run that has just met a bad step.

    Args:
        header: of the session.
        alert: of the bad step, with its window.
        steps_seen: how many steps the session has read.
        run: name of the run.
    """
    bad, unfinished = (alert,) if alert.findings else (), (alert,) if alert.error else ()
    log = RunLog(run, (SessionLog(header, _after_earlier_bad_steps(alert.window), bad, unfinished),))
    return replace(diagnose(log), steps_seen=steps_seen)


def verdict_by_hand(replay: Replay, variables: Sequence[Variable], *, step: int, run: str) -> Verdict:
    """Return the verdict on a step that the user replayed.

    Args:
        replay: its result.
        variables: as the header lists them.
        step: the number that the verdict gives to the step.
        run: name of the run.

    Raises:
        SetupError: if the step could not be run.
    """
    if replay.outcome == "failed":
        raise SetupError(" ".join(replay.notes))
    if replay.outcome == "finite":
        return Verdict(run, "finite", "Every operation of the step was finite.", steps_seen=1, notes=replay.notes)
    alert = Alert(step, 0, step, "raised", (finding_of(replay.chains[0][0]),), NO_STEPS, replay)
    return verdict_of_alert(Header(0, tuple(variables)), alert, steps_seen=1, run=run)


def finding_of(link: Link) -> Finding:
    """Return the finding that the row of a bad step would give for an origin that a replay found."""
    return Finding(_ROLE_OF_PHASE[link.phase], link.tensor or link.variable or "loss", link.counts, link.samples)


def gradient_sizes_before(alert: Alert, variables: Sequence[Variable]) -> tuple[float, ...]:
    """Return the root mean square of each variable's gradient in the step before a bad step, after clipping.

    Args:
        alert: of the bad step.
        variables: in column order.

    Returns:
        1 for each gradient that is not known or not finite.
    """
    window = alert.window
    stat = next((stat for stat in ("clipped_norm", "grad_norm") if (stat, "max") in window.columns), None)
    rows = np.flatnonzero(window.last_step < alert.step)
    if stat is None or not len(rows):
        return (1.0,) * len(variables)
    norms = window.column(stat, "max")[rows[-1]]
    sizes = [math.prod(max(1, size) for size in variable.shape) for variable in variables]
    roots = [float(norm) / math.sqrt(size) for norm, size in zip(norms, sizes, strict=True)]
    return tuple(root if math.isfinite(root) else 1.0 for root in roots)


def samples_of(alert: Alert) -> tuple[int, ...]:
    """Return the bad samples of the batch; empty if no argument of the step is bad."""
    return next((finding.samples for finding in alert.findings if finding.role == "input" and finding.samples), ())


def message_of(verdict: Verdict, alert: Alert, logdir: str, *, skips: int = 0) -> str:
    """Return the message of the exception.

    Args:
        verdict: on the run.
        alert: of the bad step.
        logdir: the run's directory.
        skips: how many bad steps in a row the policy skipped; 0 if it does not skip.
    """
    command = f"nanwatch {shlex.quote(logdir)}"
    lost = lost_weights(alert)
    if lost is not None:
        return f"{verdict.text} {lost} For more: {command}"
    if skips:
        return f"{verdict.text} From there {skips:,} bad steps in a row were skipped. For more: {command}"
    is_withheld = not len(alert.window) or alert.step == alert.window.last_step[-1]
    withheld = f" The update of step {alert.step} was withheld." if is_withheld else ""
    return f"{verdict.text}{withheld} For more: {command}"


def _after_earlier_bad_steps(window: Series) -> Series:
    # The user's program may have caught an earlier error and gone on: that bad step is no part of this verdict.
    columns = [column for key, column in window.columns.items() if key.keeps == "nonfinite"]
    if not columns or not len(window):
        return window
    bad = np.any([column.any(axis=1) for column in columns], axis=0)
    before = np.flatnonzero(bad[:-1])
    return window.rows(slice(int(before[-1]) + 1, None)) if len(before) else window
