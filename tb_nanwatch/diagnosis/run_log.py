"""The log of one run: the input of every diagnosis."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tb_nanwatch.schema.records import Alert, Header, IntArray, Series


@dataclass(frozen=True, eq=False)
class SessionLog:
    """The log of one session.

    Attributes:
        header: its constants.
        series: its spans; of length 0 if none were written.
        alerts: alerts of bad steps, in order of steps.
        unfinished: alerts of steps that an error ended early, bad or not.
    """

    header: Header
    series: Series
    alerts: tuple[Alert, ...] = ()
    unfinished: tuple[Alert, ...] = ()

    def before(self, step: int) -> SessionLog:
        """Return the session before a step: without that step, later steps, and any span that holds the step."""
        rows = int(np.searchsorted(self.series.last_step, step, side="left"))
        return replace(self, series=self.series.rows(slice(rows)))

    @property
    def first_step(self) -> int | None:
        """The first watched step; ``None`` if the session watched none."""
        if self.alerts:
            return self.alerts[0].first_step
        return int(self.series.first_step[0]) if len(self.series) else None

    @property
    def steps_seen(self) -> int:
        """The number of watched steps, with steps that only an alert reports.

        An alert may report a step that never ran: the step after the last one, if the last update made variables bad.
        Such a step does not count.
        """
        last = int(self.series.last_step[-1]) if len(self.series) else -1
        alerted = {
            alert.step for alert in self.alerts if not len(alert.window) or alert.window.last_step[-1] == alert.step
        }
        return int(steps_held(self.series).sum()) + sum(step > last for step in alerted)


@dataclass(frozen=True, eq=False)
class RunLog:
    """The log of one run.

    Attributes:
        run: name of the run in TensorBoard.
        sessions: in order.
        problems: the parts that could not be read, a sentence each.
        remarks: other remarks on the log, a sentence each.
    """

    run: str
    sessions: tuple[SessionLog, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def steps_held(series: Series) -> IntArray:
    """Return the number of steps in each span.

    Steps need not be consecutive, so a span may hold fewer steps than its width. The counts of the step's own
    statistics give the number, or the narrowest other statistics if there are none. If a span has no counts, its width
    is the number.

    Args:
        series: n spans.

    Returns:
        int64 ``[n]``, each at least 1.
    """
    width = series.last_step - series.first_step + 1
    counted = np.zeros_like(width)
    widths = {key.stat: series.columns[key].shape[1] for key in series.columns if key.keeps == "count"}
    for stat in (stat for stat in widths if widths[stat] == min(widths.values())):
        measured = series.column(stat, "count").astype(np.int64) + series.column(stat, "nonfinite").astype(np.int64)
        counted = np.maximum(counted, measured.max(axis=1, initial=0))
    return np.where(counted > 0, np.minimum(counted, width), width)


def skipped_steps(series: Series) -> int:
    """Return the number of steps whose update did not run: scaled gradients overflowed, or the policy skipped it."""
    if ("skipped", "mean") not in series.columns:
        return 0
    share = series.column("skipped", "mean").astype(np.float64)
    return int(np.rint(np.nan_to_num(share) * series.column("skipped", "count").astype(np.int64)).sum())


def layer_columns(header: Header) -> dict[str | None, list[int]]:
    """Return the column numbers of each layer's variables, in the order of the variables."""
    columns: dict[str | None, list[int]] = {}
    for column, variable in enumerate(header.variables):
        columns.setdefault(variable.layer, []).append(column)
    return columns
