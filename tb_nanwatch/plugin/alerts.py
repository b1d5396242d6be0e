"""The answers about one bad step: its findings, the steps before it, and the path of its batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final

import numpy as np

from tb_nanwatch.diagnosis import RunLog, SessionLog, origin_of_alert
from tb_nanwatch.diagnosis.origin import path_of_batch
from tb_nanwatch.plugin.answers import session_of
from tb_nanwatch.plugin.requests import AlertRequest, not_found
from tb_nanwatch.reading.selection import integers, numbers
from tb_nanwatch.schema.protocol import AlertAnswer, BatchAnswer, FindingRow, Numbers, VariableRow
from tb_nanwatch.schema.records import Alert, ColumnKey, Header, Series

_STEPS: Final = 16
_NORMS: Final = ("grad_norm", "clipped_norm", "weight_norm")
_ROLES_OF_VARIABLES: Final = frozenset({"weight", "gradient", "clipped"})


def alert_answer(log: RunLog, request: AlertRequest) -> AlertAnswer:
    """Return one bad step.

    Args:
        log: log of the run.
        request: its step is the step of an alert, or of an alert's origin if that is the update before.

    Returns:
        The findings and at most 16 steps. If several alerts have this step, the findings of all and the first replay.

    Raises:
        tensorboard.errors.NotFoundError: if the session or an alert at that step does not exist.
    """
    session, alerts = _alerts(log, request)
    # If the first message of an alert is lost, the second has no window.
    window = max((alert.window for alert in alerts), key=len).rows(slice(-_STEPS, None))
    return AlertAnswer(
        run=log.run,
        step=alerts[0].step,
        action=alerts[0].action,
        findings=tuple(row for alert in alerts for row in _finding_rows(session.header, alert)),
        steps=integers(window.last_step),
        loss=_numbers(window, "loss", 0),
        variables=_variable_rows(session.header, window),
        replay=next((alert.replay for alert in alerts if alert.replay is not None), None),
        batch=_batch(log, alerts),
    )


def batch_answer(log: RunLog, request: AlertRequest) -> BatchAnswer:
    """Return the path of a bad step's saved batch. The file itself is not opened.

    Args:
        log: log of the run.
        request: as for :func:`alert_answer`.

    Raises:
        tensorboard.errors.NotFoundError: if the session or an alert at that step does not exist.
    """
    _, alerts = _alerts(log, request)
    batch = _batch(log, alerts)
    return BatchAnswer(run=log.run, step=alerts[0].step, saved=batch is not None, batch=batch)


def _batch(log: RunLog, alerts: Sequence[Alert]) -> str | None:
    return next((path_of_batch(log.run, alert.batch) for alert in alerts if alert.batch is not None), None)


def _alerts(log: RunLog, request: AlertRequest) -> tuple[SessionLog, list[Alert]]:
    deciding = session_of(log, request.session)
    others = [session for session in log.sessions if session is not deciding and request.session is None]
    for matches in (_is_at, _has_origin_at):
        for session in (deciding, *others):
            if alerts := [alert for alert in session.alerts if matches(session.header, alert, request.step)]:
                return session, alerts
    raise not_found(f"the run must have an alert at step {request.step}, and has not")


def _is_at(_: Header, alert: Alert, step: int) -> bool:
    return alert.step == step


def _has_origin_at(header: Header, alert: Alert, step: int) -> bool:
    return origin_of_alert(header, alert).step == step


def _finding_rows(header: Header, alert: Alert) -> list[FindingRow]:
    layers = header.layers
    return [
        FindingRow(
            role=finding.role,
            name=finding.name,
            layer=layers.get(finding.name) if finding.role in _ROLES_OF_VARIABLES else None,
            counts=finding.counts,
            samples=finding.samples,
        )
        for finding in alert.findings
    ]


def _variable_rows(header: Header, window: Series) -> tuple[VariableRow, ...]:
    return tuple(
        VariableRow(
            name=variable.name,
            layer=variable.layer,
            grad_norm=_numbers(window, "grad_norm", column),
            clipped_norm=_numbers(window, "clipped_norm", column),
            weight_norm=_numbers(window, "weight_norm", column),
            kinds=_kinds(window, column),
        )
        for column, variable in enumerate(header.variables)
    )


def _numbers(window: Series, stat: str, column: int) -> Numbers:
    key = ColumnKey(stat, "max")
    return numbers(window, key, column) if key in window.columns else (None,) * len(window)


def _kinds(window: Series, column: int) -> tuple[int, ...]:
    kinds = [window.column(stat, "kinds")[:, column] for stat in _NORMS if (stat, "kinds") in window.columns]
    return integers(reduce(np.bitwise_or, kinds, np.zeros(len(window), np.uint8)))
