"""The answers that the page draws over the steps: the timeline and the heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tb_nanwatch.diagnosis import RunLog, SessionLog
from tb_nanwatch.diagnosis.run_log import layer_columns
from tb_nanwatch.diagnosis.verdict import deciding_session
from tb_nanwatch.numerics.spans import thin_to
from tb_nanwatch.plugin.requests import HeatmapRequest, SeriesRequest, not_found
from tb_nanwatch.reading.grouping import LayerCache
from tb_nanwatch.reading.selection import curve, integers, kinds, numbers, select_columns, select_steps
from tb_nanwatch.schema.protocol import Curve, HeatmapAnswer, HeatmapRow, SeriesAnswer
from tb_nanwatch.schema.records import ColumnKey, Header, Series
from tb_nanwatch.schema.stats import of_scope

_MOST_CELLS: Final = 30_000
"""Largest heatmap: with many rows it has fewer columns, so that the answer stays below 300 kB."""
_FEWEST_COLUMNS: Final = 24
_MOST_CELLS_WITH_ALL_DIGITS: Final = 10_000
"""Above this size numbers have four digits, more than colours can show. A single column, for reading, has six."""


def session_of(log: RunLog, number: int | None) -> SessionLog:
    """Return a session by its number; without a number, the session that the verdict is about.

    Raises:
        tensorboard.errors.NotFoundError: if the session does not exist.
    """
    matching = (session for session in log.sessions if session.header.session == number)
    session = deciding_session(log) if number is None else next(matching, None)
    if session is None:
        expected = "any session that can be read" if number is None else f"a session {number}"
        raise not_found(f"the run must have {expected}, and has not")
    return session


def series_answer(log: RunLog, request: SeriesRequest, layers: LayerCache) -> SeriesAnswer:
    """Return the timeline of one session."""
    session = session_of(log, request.session)
    step_stats = [stat.key for stat in of_scope("step") if (stat.key, "kinds") in session.series.columns]
    steps = _shown(select_columns(session.series, step_stats), request, request.points)
    return SeriesAnswer(
        run=log.run,
        session=session.header.session,
        sessions=_sessions(log),
        first_step=integers(steps.first_step),
        last_step=integers(steps.last_step),
        curves=(
            *(curve(steps, stat, name=stat) for stat in step_stats),
            *_ratio(session, request, layers),
        ),
        tensors=_tensors(session, request),
    )


def heatmap_answer(log: RunLog, request: HeatmapRequest, layers: LayerCache) -> HeatmapAnswer:
    """Return one statistic of one session, without rows if the session does not record it."""
    session = session_of(log, request.session)
    is_recorded = (request.stat, request.keeps) in session.series.columns
    rows = _rows(session.header, by=request.by) if is_recorded else []
    columns = min(request.columns, max(_FEWEST_COLUMNS, _MOST_CELLS // max(1, len(rows))))
    # Merging means needs the number of their steps.
    keeps = (request.keeps, "kinds", "count") if request.keeps == "mean" else (request.keeps, "kinds")
    if request.by == "variable":
        series = select_columns(session.series, [request.stat], keeps=keeps)
    else:
        series = layers.grouped(session.series, request.stat, keeps=keeps, groups=[group for _, group in rows])
    shown = _shown(series, request, columns)
    key = ColumnKey(request.stat, request.keeps)
    digits = 4 if len(rows) * len(shown) > _MOST_CELLS_WITH_ALL_DIGITS else 6
    return HeatmapAnswer(
        run=log.run,
        session=session.header.session,
        sessions=_sessions(log),
        stat=request.stat,
        keeps=request.keeps,
        rows=tuple(row for row, _ in rows),
        first_step=integers(shown.first_step),
        last_step=integers(shown.last_step),
        values=tuple(numbers(shown, key, column, digits=digits) for column in range(len(rows))),
        kinds=tuple(kinds(shown, request.stat, column) for column in range(len(rows))),
    )


def _sessions(log: RunLog) -> tuple[int, ...]:
    return tuple(session.header.session for session in log.sessions)


def _shown(series: Series, request: SeriesRequest | HeatmapRequest, spans: int) -> Series:
    return thin_to(select_steps(series, first=request.first, last=request.last), spans)


def _ratio(session: SessionLog, request: SeriesRequest, layers: LayerCache) -> tuple[Curve, ...]:
    variables = len(session.header.variables)
    if ("clip_ratio", "min") not in session.series.columns or not variables:
        return ()
    keeps = ("min", "mean", "kinds", "count")
    model = layers.grouped(session.series, "clip_ratio", keeps=keeps, groups=[range(variables)])
    return (curve(_shown(model, request, request.points), "clip_ratio", name="clip_ratio"),)


def _tensors(session: SessionLog, request: SeriesRequest) -> tuple[Curve, ...]:
    if ("tensor_norm", "min") not in session.series.columns:
        return ()
    shown = _shown(select_columns(session.series, ["tensor_norm"]), request, request.points)
    names = session.header.tensors
    return tuple(curve(shown, "tensor_norm", name=name, column=column) for column, name in enumerate(names))


def _rows(header: Header, *, by: str) -> list[tuple[HeatmapRow, Sequence[int]]]:
    if by == "variable":
        return _variable_rows(header, range(len(header.variables)))
    rows: list[tuple[HeatmapRow, Sequence[int]]] = []
    for layer, columns in layer_columns(header).items():
        # Variables without an owner do not form a layer; each has its own row.
        rows += _variable_rows(header, columns) if layer is None else [(HeatmapRow(layer, layer, None), columns)]
    return rows


def _variable_rows(header: Header, columns: Sequence[int]) -> list[tuple[HeatmapRow, Sequence[int]]]:
    variables = [(column, header.variables[column]) for column in columns]
    return [(HeatmapRow(variable.name, variable.layer, variable.name), [column]) for column, variable in variables]
