"""What the processes of one training wrote of a session, each for itself, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tb_nanwatch.diagnosis import SessionLog
from tb_nanwatch.numerics.spans import merge_alike
from tb_nanwatch.schema.records import Alert, Header


def as_one(workers: Sequence[SessionLog], problems: list[str]) -> SessionLog:
    """Merge what several processes saw of the same steps.

    Args:
        workers: the session as each of them wrote it, in their order; at least one.
        problems: is told of a process whose records do not go together with those of the first.

    Returns:
        The session itself where there is but one process; else one whose spans are those of all, and whose alerts each
        say whose they are.
    """
    if len(workers) == 1:
        return workers[0]
    first = workers[0]
    alike = [one for one in workers if _goes_with(one, first)]
    problems += [
        f"session {one.header.session} of worker {one.header.worker}: it watched other variables than the first worker"
        " did, so its spans are left out."
        for one in workers
        if one not in alike
    ]
    series = [one.series for one in alike if len(one.series)]
    header = replace(first.header, worker=None)
    return SessionLog(header, merge_alike(series) if series else first.series, _alerts(workers), first.unfinished)


def _goes_with(one: SessionLog, first: SessionLog) -> bool:
    either_is_empty = not len(one.series) or not len(first.series)
    same_columns = either_is_empty or one.series.columns.keys() == first.series.columns.keys()
    return same_columns and _widths(one.header) == _widths(first.header)


def _widths(header: Header) -> tuple[object, ...]:
    return tuple(variable.name for variable in header.variables), header.tensors


def _alerts(workers: Sequence[SessionLog]) -> tuple[Alert, ...]:
    """Return an alert for each bad step of each replica: of those that several wrote, the one of whose it is."""
    kept: dict[tuple[int, int | None, int | None], Alert] = {}
    for one in workers:
        for alert in one.alerts:
            key = (alert.step, alert.worker, alert.replica)
            if key not in kept or alert.worker == one.header.worker:
                kept[key] = alert
    return tuple(sorted(kept.values(), key=lambda alert: alert.step))
