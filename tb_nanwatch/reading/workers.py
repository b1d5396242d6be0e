"""The merge of one session's logs from several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tb_nanwatch.diagnosis import SessionLog
from tb_nanwatch.numerics.spans import merge_alike
from tb_nanwatch.schema.records import Alert, Header


def merge_workers(workers: Sequence[SessionLog], problems: list[str]) -> SessionLog:
    """Merge the logs of one session from several processes.

    Args:
        workers: the session as each process wrote it, in their order; at least one.
        problems: receives a sentence for each process whose spans do not fit those of the first.

    Returns:
        The session itself if there is only one process. Otherwise a session with the merged spans, whose alerts name
        their process.
    """
    if len(workers) == 1:
        return workers[0]
    first = workers[0]
    compatible = [worker for worker in workers if _fits(worker, first)]
    problems += [
        f"session {worker.header.session} of worker {worker.header.worker}: it watched other variables than the first"
        " worker did, so its spans are left out."
        for worker in workers
        if worker not in compatible
    ]
    series = [worker.series for worker in compatible if len(worker.series)]
    header = replace(first.header, worker=None)
    return SessionLog(header, merge_alike(series) if series else first.series, _alerts(workers), first.unfinished)


def _fits(worker: SessionLog, first: SessionLog) -> bool:
    is_one_empty = not len(worker.series) or not len(first.series)
    has_same_columns = is_one_empty or worker.series.columns.keys() == first.series.columns.keys()
    return has_same_columns and _names(worker.header) == _names(first.header)


def _names(header: Header) -> tuple[object, ...]:
    return tuple(variable.name for variable in header.variables), header.tensors


def _alerts(workers: Sequence[SessionLog]) -> tuple[Alert, ...]:
    """Return one alert for each bad step of each replica.

    Several processes may write it. The one from the process that it describes has the most detail.
    """
    alerts: dict[tuple[int, int | None, int | None], Alert] = {}
    for worker in workers:
        for alert in worker.alerts:
            key = (alert.step, alert.worker, alert.replica)
            if key not in alerts or alert.worker == worker.header.worker:
                alerts[key] = alert
    return tuple(sorted(alerts.values(), key=lambda alert: alert.step))
