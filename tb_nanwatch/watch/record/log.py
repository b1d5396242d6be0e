"""The log of a session: its header, its spans and its alerts, as far as they can be written."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from tb_nanwatch import __version__
from tb_nanwatch.schema.records import Alert, Header, Policy, Series
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.record.history import NO_STEPS
from tb_nanwatch.watch.record.thinner import Thinner
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.row.cells import Layout

MOST_ALERTS: Final = 16
"""Alerts of steps that did not end training: one step in every hundred may be bad, for as long as the run lasts."""
_MODULES: Final = ("tensorflow", "keras", "tf_keras", "numpy")


class Log:
    """Writes sessions one after another; a step that goes back begins the next session.

    If a write fails, the boundary warns once, and the log writes nothing more. Its attributes stay up to date, so that
    an alert is complete all the same.

    Attributes:
        header: of the current session; ``None`` before its first step.
        first_step: the first step of the current session; -1 before it.
        last_step: the last step of the current session; -1 before the first.
    """

    def __init__(
        self, layout: Layout, *, writer: Writer, boundary: Boundary, policy: Policy, worker: int | None
    ) -> None:
        """Begin; nothing is written before the first step.

        Args:
            layout: of the rows that the series are decoded from.
            writer: takes the messages.
            boundary: of the watch.
            policy: the policy that the user chose.
            worker: number of this process; ``None`` if only one process trains.
        """
        self._layout, self._policy, self._worker = layout, policy, worker
        self._writer, self._boundary, self._is_writing = writer, boundary, True
        self._alerts_left = MOST_ALERTS
        self._forget_session()

    def _forget_session(self) -> None:
        self.header: Header | None = None
        self.first_step = self.last_step = -1
        self._thinner = Thinner()

    def add(self, series: Series) -> None:
        """Write single steps that grow; if they do not continue the current session, they begin the next.

        Args:
            series: at least one step.
        """
        if self.header is not None and series.first_step[0] <= self.last_step:
            self._attempt(self._write_rest)
            self._forget_session()
        self.begin(series)
        self.last_step = int(series.last_step[-1])
        self._attempt(lambda: self._write_spans(self._thinner.add(series)))

    def begin(self, series: Series) -> None:
        """Write the header of the current session, unless it is written.

        Args:
            series: the first steps; empty if an error ended the first step. Then that step has the number 0.
        """
        if self.header is not None:
            return
        self.header = header = Header(
            session=self._boundary.attempt("count the sessions", self._writer.next_session, otherwise=0),
            variables=self._layout.variables,
            tensors=self._layout.tensors,
            stats=tuple(dict.fromkeys(key.stat for key in series.columns)),
            policy=self._policy,
            clip=self._layout.clip,
            versions=loaded_versions(),
            worker=self._worker,
        )
        self._attempt(lambda: self._writer.write_header(header))
        self.first_step = int(series.first_step[0]) if len(series) else 0

    def write_alert(self, alert: Alert) -> None:
        """Write an alert after the steps before it, unless training goes on and there were too many such alerts."""
        ends_training = alert.action == "raised"
        self._alerts_left -= not ends_training
        if ends_training or self._alerts_left >= 0:
            self._attempt(self._write_rest)
            self._attempt(lambda: self._writer.write_alert(alert))

    def supplement(self, alert: Alert) -> None:
        """Write an alert a second time, without its window, when more is known of its step."""
        self._attempt(lambda: self._writer.write_alert(replace(alert, window=NO_STEPS)))

    def save_unfinished(self) -> None:
        """Hand all steps to the file system, also those of the span that is not full."""
        self._attempt(lambda: self._writer.keep(self._thinner.unfinished))

    def close(self) -> None:
        """Write the span that is not full, and hand all steps to the file system."""
        self._attempt(self._write_rest)
        self._attempt(self._writer.flush)

    def _attempt(self, write: Callable[[], None]) -> None:
        def is_written() -> bool:
            write()
            return True

        if self._is_writing:
            part = "write the log, and records nothing more"
            self._is_writing = self._boundary.attempt(part, is_written, otherwise=False)

    def _write_rest(self) -> None:
        self._write_spans(self._thinner.rest())

    def _write_spans(self, spans: Iterable[tuple[int, Series]]) -> None:
        for generation, series in spans:
            self._writer.write_spans(series, generation=generation)


def loaded_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of each framework that the program has loaded.

    A module states its version, whatever package it came in: ``tensorflow`` also comes as ``tensorflow-cpu``,
    ``tf-nightly`` and vendors' builds.

    Returns:
        By name of the module, without modules that are not loaded or state no version.
    """
    stated = {name: getattr(sys.modules.get(name), "__version__", None) for name in _MODULES}
    known = {name: version for name, version in stated.items() if isinstance(version, str)}
    return {"python": platform.python_version(), "tb_nanwatch": __version__, **known}
