"""What the plugin's routes answer, besides :class:`~tb_nanwatch.schema.records.Verdicts`.

``frontend/src/protocol.gen.ts`` is generated from these classes, so the page cannot drift from them. Every list of
numbers holds ``None`` where there is no finite value; ``kinds`` beside it says why: the bits of
:data:`tb_nanwatch.schema.stats.BOOKKEEPING`, 0 where nothing was non-finite.
"""

from __future__ import annotations

from dataclasses import dataclass

from tb_nanwatch.schema.records import Action, Counts, Replay, Role

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Curve:
    """One quantity over the spans of an answer: its extremes and mean in each. A list that is not kept is empty."""

    name: str
    min: Numbers
    max: Numbers
    mean: Numbers
    kinds: tuple[int, ...]


@dataclass(frozen=True)
class SeriesAnswer:
    """``/series``: the timeline of one session of a run.

    Attributes:
        session: the session that is shown.
        sessions: all of the run's, in order.
        curves: each statistic of the step, then ``clip_ratio``, the smallest of all variables.
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
    """One row of the heatmap; ``variable`` is ``None`` where a row stands for a whole layer."""

    label: str
    layer: str | None
    variable: str | None


@dataclass(frozen=True)
class HeatmapAnswer:
    """``/heatmap``: one statistic of one session, rows (layers or variables, in the model's order) by spans."""

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
    """One thing that was non-finite in the step of an alert."""

    role: Role
    name: str
    layer: str | None
    counts: Counts | None
    samples: tuple[int, ...]


@dataclass(frozen=True)
class VariableRow:
    """One variable's norms in the steps of an alert's answer, and what of it was non-finite in each."""

    name: str
    layer: str | None
    grad_norm: Numbers
    clipped_norm: Numbers
    weight_norm: Numbers
    kinds: tuple[int, ...]


@dataclass(frozen=True)
class AlertAnswer:
    """``/alert``: one bad step and the steps before it, one by one, the bad step last.

    Attributes:
        replay: what running it again brought; ``None`` where it was not.
        batch: the file with the step's arguments, relative to the logdir; ``None`` if it was not saved.
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
    """``/batch``: where the arguments of one bad step were saved; the file itself is not served.

    Attributes:
        saved: whether they were.
        batch: the file, relative to the logdir; ``None`` if they were not.
    """

    run: str
    step: int
    saved: bool
    batch: str | None
