"""From a run's log to what the page draws over the steps: the timeline and the heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tb_nanwatch.diagnosis import RunLog, SessionLog
from tb_nanwatch.diagnosis.run_log import layer_columns
from tb_nanwatch.diagnosis.verdict import deciding_session
from tb_nanwatch.plugin.requests import HeatmapRequest, SeriesRequest, not_found
from tb_nanwatch.reading.thinning import curve, grouped, integers, kinds, numbers, only, thinned, within
from tb_nanwatch.schema.protocol import Curve, HeatmapAnswer, HeatmapRow, SeriesAnswer
from tb_nanwatch.schema.records import ColumnKey, Header, Series
from tb_nanwatch.schema.stats import of_scope

_MOST_CELLS: Final = 400_000
"""Of a heatmap: thousands of rows get fewer columns, so that the answer stays a few megabytes."""


def session_of(log: RunLog, number: int | None) -> SessionLog:
    """Return a session by its number, or where none is asked for, the one that the verdict is about.

    Raises:
        tensorboard.errors.NotFoundError: if there is no such session.
    """
    chosen = (session for session in log.sessions if session.header.session == number)
    session = deciding_session(log) if number is None else next(chosen, None)
    if session is None:
        what = "any session that can be read" if number is None else f"a session {number}"
        raise not_found(f"the run must have {what}, and has not")
    return session


def series_answer(log: RunLog, request: SeriesRequest) -> SeriesAnswer:
    """Return the timeline of one session."""
    session = session_of(log, request.session)
    spans = within(session.series, first=request.first, last=request.last)
    step_stats = [stat.key for stat in of_scope("step") if (stat.key, "kinds") in spans.columns]
    steps = thinned(only(spans, step_stats), request.points)
    return SeriesAnswer(
        run=log.run,
        session=session.header.session,
        sessions=_sessions(log),
        first_step=integers(steps.first_step),
        last_step=integers(steps.last_step),
        curves=(
            *(curve(steps, stat, name=stat) for stat in step_stats),
            *_ratio(session.header, spans, request.points),
        ),
        tensors=_tensors(session.header, spans, request.points),
    )


def heatmap_answer(log: RunLog, request: HeatmapRequest) -> HeatmapAnswer:
    """Return one statistic of one session; where it was not recorded there are no rows."""
    session = session_of(log, request.session)
    spans = within(session.series, first=request.first, last=request.last)
    is_recorded = (request.stat, request.keeps) in spans.columns
    rows = _rows(session.header, by=request.by) if is_recorded else []
    columns = min(request.columns, max(1, _MOST_CELLS // max(1, len(rows))))
    # A mean is merged by how many steps it stands for.
    told = only(spans, [request.stat], keeps=(request.keeps, "kinds", "count"))
    combined = told if request.by == "variable" else grouped(told, request.stat, [group for _, group in rows])
    shown = thinned(combined, columns)
    key = ColumnKey(request.stat, request.keeps)
    return HeatmapAnswer(
        run=log.run,
        session=session.header.session,
        sessions=_sessions(log),
        stat=request.stat,
        keeps=request.keeps,
        rows=tuple(row for row, _ in rows),
        first_step=integers(shown.first_step),
        last_step=integers(shown.last_step),
        values=tuple(numbers(shown, key, column) for column in range(len(rows))),
        kinds=tuple(kinds(shown, request.stat, column) for column in range(len(rows))),
    )


def _sessions(log: RunLog) -> tuple[int, ...]:
    return tuple(session.header.session for session in log.sessions)


def _ratio(header: Header, spans: Series, points: int) -> tuple[Curve, ...]:
    if ("clip_ratio", "min") not in spans.columns or not header.variables:
        return ()
    every = grouped(spans, "clip_ratio", [range(len(header.variables))])
    return (curve(thinned(every, points), "clip_ratio", name="clip_ratio"),)


def _tensors(header: Header, spans: Series, points: int) -> tuple[Curve, ...]:
    if ("tensor_norm", "min") not in spans.columns:
        return ()
    shown = thinned(only(spans, ["tensor_norm"]), points)
    return tuple(curve(shown, "tensor_norm", name=name, column=column) for column, name in enumerate(header.tensors))


def _rows(header: Header, *, by: str) -> list[tuple[HeatmapRow, Sequence[int]]]:
    if by == "variable":
        return _variable_rows(header, range(len(header.variables)))
    rows: list[tuple[HeatmapRow, Sequence[int]]] = []
    for layer, columns in layer_columns(header).items():
        # Variables without an owner are no layer together.
        rows += _variable_rows(header, columns) if layer is None else [(HeatmapRow(layer, layer, None), columns)]
    return rows


def _variable_rows(header: Header, columns: Sequence[int]) -> list[tuple[HeatmapRow, Sequence[int]]]:
    variables = [(column, header.variables[column]) for column in columns]
    return [(HeatmapRow(of.name, of.layer, of.name), [column]) for column, of in variables]
