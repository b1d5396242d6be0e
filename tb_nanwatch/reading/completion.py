"""The joining of alerts: one alert for each bad step, from the messages about it.

The training process writes an alert at once, because it may be killed the next moment. It writes the alert again with
the result of the replay and the path of the batch. The second message has no window, because the first has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from tb_nanwatch.schema.records import Alert, Finding

_Key = tuple[int, tuple[Finding, ...]]


def join_messages(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """Join the messages about each bad step.

    Args:
        alerts: alerts of one session, in the order they were written.

    Returns:
        Each first message with the replay and the batch of the later messages of the same step and findings. If the
        first or the later message is missing, the other is kept alone.
    """
    messages = list(alerts)
    joined = [alert for alert in messages if not _is_addition(alert)]
    places = {_key(alert): place for place, alert in enumerate(joined)}
    for addition in filter(_is_addition, messages):
        place = places.setdefault(_key(addition), len(joined))
        if place == len(joined):
            joined.append(addition)
        joined[place] = _with_addition(joined[place], addition)
    return tuple(joined)


def is_below(path: str) -> bool:
    """Return whether a relative path stays below its base directory, on any operating system.

    Example:
        >>> [is_below(path) for path in ("nanwatch/step-3.npz", "../other.npz", "/etc/passwd", "C:/other.npz")]
        [True, False, False, False]
    """
    parts = re.split(r"[/\\]", path)
    return bool(parts[0]) and ":" not in parts[0] and ".." not in parts


def _is_addition(alert: Alert) -> bool:
    return not len(alert.window) and (alert.replay is not None or alert.batch is not None or bool(alert.notes))


def _key(alert: Alert) -> _Key:
    # The findings of a step that an error ended are known only after its replay.
    return alert.step, () if alert.error else alert.findings


def _with_addition(alert: Alert, addition: Alert) -> Alert:
    return replace(
        alert,
        findings=addition.findings or alert.findings,
        replay=addition.replay or alert.replay,
        batch=addition.batch or alert.batch,
        notes=(*alert.notes, *addition.notes),
    )
