"""From the alerts as they were written to one for each bad step.

The training process writes an alert at once, since it may be killed the next moment, and a second time with what the
replay brought and with where the batch was saved. The second has no window: the steps that led there stand in the
first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from tb_nanwatch.schema.records import Alert, Finding

_Key = tuple[int, tuple[Finding, ...]]


def completed(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """Join what was written of one bad step in two messages.

    Args:
        alerts: of one session, in the order they were written.

    Returns:
        Each first message with the replay and the batch of the second that has its step and its findings. Where either
        is missing, the other stands alone.
    """
    written = list(alerts)
    joined = [alert for alert in written if not _is_addition(alert)]
    places = {_key(alert): place for place, alert in enumerate(joined)}
    for addition in filter(_is_addition, written):
        place = places.setdefault(_key(addition), len(joined))
        if place == len(joined):
            joined.append(addition)
        joined[place] = _with(joined[place], addition)
    return tuple(joined)


def is_below(path: str) -> bool:
    """Whether a relative path stays below the directory it is relative to, on any system.

    Example:
        >>> [is_below(path) for path in ("nanwatch/step-3.npz", "../other.npz", "/etc/passwd", "C:/other.npz")]
        [True, False, False, False]
    """
    parts = re.split(r"[/\\]", path)
    return bool(parts[0]) and ":" not in parts[0] and ".." not in parts


def _is_addition(alert: Alert) -> bool:
    return not len(alert.window) and (alert.replay is not None or alert.batch is not None or bool(alert.notes))


def _key(alert: Alert) -> _Key:
    # What was not finite in a step that did not end is known only when it was run again.
    return alert.step, () if alert.error else alert.findings


def _with(alert: Alert, addition: Alert) -> Alert:
    return replace(
        alert,
        findings=addition.findings or alert.findings,
        replay=addition.replay or alert.replay,
        batch=addition.batch or alert.batch,
        notes=(*alert.notes, *addition.notes),
    )
