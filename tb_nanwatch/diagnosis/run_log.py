"""What was read of one run: the input of every diagnosis, whoever read it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tb_nanwatch.schema.records import Alert, Header, IntArray, Series


@dataclass(frozen=True, eq=False)
class SessionLog:
    """What one session left.

    Attributes:
        header: its constants.
        series: its spans; of length 0 where none were written.
        alerts: those of bad steps, in order of steps.
        unfinished: those of steps that ended with an error before they were whole, bad or not.
    """

    header: Header
    series: Series
    alerts: tuple[Alert, ...] = ()
    unfinished: tuple[Alert, ...] = ()

    def before(self, step: int) -> SessionLog:
        """Return the session as it was before a step: without that step, and without a span that holds it."""
        rows = int(np.searchsorted(self.series.last_step, step, side="left"))
        return replace(self, series=self.series.rows(slice(rows)))

    @property
    def first_step(self) -> int | None:
        """The first step that the session watched; ``None`` where it watched none."""
        if self.alerts:
            return self.alerts[0].first_step
        return int(self.series.first_step[0]) if len(self.series) else None

    @property
    def steps_seen(self) -> int:
        """How many steps it watched; one that only an alert tells of counts too, unless it never came to be.

        The step after the last one is such: its alert tells of variables that the last update left bad.
        """
        last = int(self.series.last_step[-1]) if len(self.series) else -1
        taken = {
            alert.step for alert in self.alerts if not len(alert.window) or alert.window.last_step[-1] == alert.step
        }
        return int(steps_held(self.series).sum()) + sum(step > last for step in taken)


@dataclass(frozen=True, eq=False)
class RunLog:
    """What one run left.

    Attributes:
        run: its name, as TensorBoard shows it.
        sessions: in order.
        problems: what could not be read of it; a sentence each.
        remarks: what else there is to say about its log; a sentence each.
    """

    run: str
    sessions: tuple[SessionLog, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def steps_held(series: Series) -> IntArray:
    """Return how many steps each span stands for.

    Steps need not be consecutive, so a span may hold fewer than its width: it is asked in how many of them
    the step as a whole was measured, or where there are no such statistics, anything. Where nothing was, the
    width is taken.

    Args:
        series: n spans.

    Returns:
        int64 ``[n]``, each at least 1.
    """
    width = series.last_step - series.first_step + 1
    held = np.zeros_like(width)
    widths = {key.stat: series.columns[key].shape[1] for key in series.columns if key.keeps == "count"}
    for stat in (stat for stat in widths if widths[stat] == min(widths.values())):
        measured = series.column(stat, "count").astype(np.int64) + series.column(stat, "nonfinite").astype(np.int64)
        held = np.maximum(held, measured.max(axis=1, initial=0))
    return np.where(held > 0, np.minimum(held, width), width)


def skipped_steps(series: Series) -> int:
    """Return of how many steps the update was left out: for an overflow of scaled gradients, or by the policy."""
    if ("skipped", "mean") not in series.columns:
        return 0
    share = series.column("skipped", "mean").astype(np.float64)
    return int(np.rint(np.nan_to_num(share) * series.column("skipped", "count").astype(np.int64)).sum())


def layer_columns(header: Header) -> dict[str | None, list[int]]:
    """Return the columns of each layer in a statistic of variables, in the order of the variables."""
    columns: dict[str | None, list[int]] = {}
    for column, variable in enumerate(header.variables):
        columns.setdefault(variable.layer, []).append(column)
    return columns
