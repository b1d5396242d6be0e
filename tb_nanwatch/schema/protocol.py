"""The answers of the plugin's routes, except :class:`~tb_nanwatch.schema.records.Verdicts`.

``frontend/src/protocol.gen.ts`` is generated from these classes, so the page cannot drift from them. A list of numbers
holds ``None`` for each missing finite value. The list ``kinds`` next to it gives the reason, as the bits of
:data:`tb_nanwatch.schema.stats.BOOKKEEPING`; 0 means that nothing was non-finite.
"""

from __future__ import annotations

from dataclasses import dataclass

from tb_nanwatch.schema.records import Action, Counts, Replay, Role

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Curve:
    """One quantity: its minimum, maximum and mean in each span. A merge that the log does not keep is empty."""

    name: str
    min: Numbers
    max: Numbers
    mean: Numbers
    kinds: tuple[int, ...]


@dataclass(frozen=True)
class SeriesAnswer:
    """``/series``: the timeline of one session of a run.

    Attributes:
        session: number of the session in this answer.
        sessions: numbers of all sessions of the run, in order.
        curves: each statistic of the step, then the smallest ``clip_ratio`` of all variables.
        tensors: the norm of each watched tensor.
    """

    run: str
    session: int
    sessions: tuple[int, ...]
    first_step: tuple[int, ...]
    last_step: tuple[int, ...]
    curves: tuple[Curve, ...]
    tensors: tuple[Curve, ...]


@dataclass(frozen=True)
class HeatmapRow:
    """One row of the heatmap; ``variable`` is ``None`` if the row is a whole layer."""

    label: str
    layer: str | None
    variable: str | None


@dataclass(frozen=True)
class HeatmapAnswer:
    """``/heatmap``: one statistic of one session, as rows by spans. Rows are layers or variables in model order."""

    run: str
    session: int
    sessions: tuple[int, ...]
    stat: str
    keeps: str
    rows: tuple[HeatmapRow, ...]
    first_step: tuple[int, ...]
    last_step: tuple[int, ...]
    values: tuple[Numbers, ...]
    kinds: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class FindingRow:
    """One finding of an alert."""

    role: Role
    name: str
    layer: str | None
    counts: Counts | None
    samples: tuple[int, ...]


@dataclass(frozen=True)
class VariableRow:
    """The norms of one variable in each step of an alert, and the kinds that were non-finite."""

    name: str
    layer: str | None
    grad_norm: Numbers
    clipped_norm: Numbers
    weight_norm: Numbers
    kinds: tuple[int, ...]


@dataclass(frozen=True)
class AlertAnswer:
    """``/alert``: one bad step and the single steps before it, the bad step last.

    Attributes:
        replay: ``None`` if the step was not replayed.
        batch: file with the step's arguments, relative to the logdir; ``None`` if it was not saved.
    """

    run: str
    step: int
    action: Action
    findings: tuple[FindingRow, ...]
    steps: tuple[int, ...]
    loss: Numbers
    variables: tuple[VariableRow, ...]
    replay: Replay | None
    batch: str | None


@dataclass(frozen=True)
class BatchAnswer:
    """``/batch``: the path of the saved arguments of one bad step. The plugin does not serve the file itself.

    Attributes:
        saved: whether the arguments were saved.
        batch: the file, relative to the logdir; ``None`` if they were not saved.
    """

    run: str
    step: int
    saved: bool
    batch: str | None
