"""The records that the parts of the package exchange. They are frozen and check themselves at construction.

A session writes a ``Header``, spans of steps (``Series``) and an ``Alert`` for each bad step. ``Verdict`` is the answer
for a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tb_nanwatch.errors import RecordError

Phase = Literal["input", "weights", "forward", "loss", "backward", "clip", "update", "state"]
Kind = Literal["nan", "pos_inf", "neg_inf"]
Status = Literal["finite", "nonfinite", "warning", "incomplete", "empty"]
Policy = Literal["raise", "skip", "record"]
ClipKind = Literal["none", "scale", "other"]
Role = Literal["input", "weight", "tensor", "loss", "gradient", "clipped", "state", "scalar"]
Action = Literal["raised", "skipped", "recorded"]
ReplayOutcome = Literal["found", "finite", "failed"]
EntryWay = Literal["argument", "captured", "constant"]
Confidence = Literal["high", "medium", "low"]

PHASES: tuple[Phase, ...] = ("input", "weights", "forward", "loss", "backward", "clip", "update", "state")
"""The phases of a training step, in the order in which data flows through them."""
STEPS_BELOW: Final = 2**50
"""Steps must be below this number: JSON and the arithmetic of thinning represent them exactly. No training has more."""

Array = npt.NDArray[np.generic]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
DoubleArray = npt.NDArray[np.float64]
KindArray = npt.NDArray[np.uint8]


class ColumnKey(NamedTuple):
    """The name of a column: a statistic, and the merge or bookkeeping value that the column keeps."""

    stat: str
    keeps: str


@dataclass(frozen=True)
class Variable:
    """A trainable variable as the header lists it.

    Attributes:
        name: unique within the run.
        layer: the layer that owns it, which is the name without its last part; ``None`` without an owner.
        shape: static shape; -1 for an unknown dimension.
        dtype: TensorFlow's name of the dtype.
        backward_order: position of its gradient in the backward pass, from 0; ``None`` if unknown.
    """

    name: str
    layer: str | None
    shape: tuple[int, ...]
    dtype: str
    backward_order: int | None = None


@dataclass(frozen=True)
class Header:
    """The constants of one session.

    Attributes:
        session: its number in the run.
        variables: in column order.
        tensors: names of watched tensors, in column order.
        stats: keys of the statistics that the session records.
        policy: the policy that the user chose.
        clip: how clipping changes a gradient.
        versions: versions of Python and the packages, by name.
        worker: number of the process, from 0; ``None`` if only one process trains.
    """

    session: int
    variables: tuple[Variable, ...]
    tensors: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()
    policy: Policy = "raise"
    clip: ClipKind = "none"
    versions: Mapping[str, str] = field(default_factory=dict)
    worker: int | None = None

    def __post_init__(self) -> None:
        """Reject variables with equal names."""
        names = [variable.name for variable in self.variables]
        if len(set(names)) != len(names):
            repeated = Counter(names).most_common(1)[0][0]
            raise RecordError(f"names of variables must be unique in a header; {repeated!r} stands there twice")

    @property
    def layers(self) -> dict[str, str | None]:
        """The layer of each variable, by the variable's name."""
        return {variable.name: variable.layer for variable in self.variables}

    def width(self, scope: str) -> int:
        """Return the width of a column whose statistic has this ``scope``."""
        return {"variable": len(self.variables), "tensor": len(self.tensors), "step": 1}[scope]


@dataclass(frozen=True, eq=False)
class Series:
    """Spans of consecutive steps, as columns; a span of length 1 is a single measured step.

    Attributes:
        first_step: int64 ``[n]``, strictly increasing.
        last_step: int64 ``[n]``, inclusive; a span ends before the next begins.
        columns: each ``[n, width]``; float32 for min, max and mean (NaN if no step has a finite value), int64 for
            ``count``, ``nonfinite`` and ``first_nonfinite``, uint8 for ``kinds``.
    """

    first_step: IntArray
    last_step: IntArray
    columns: Mapping[ColumnKey, Array]

    def __post_init__(self) -> None:
        """Reject columns of unequal length, and spans that overlap or run backwards."""
        n = len(self.first_step)
        arrays = unique_arrays(self.columns)
        if len(self.last_step) != n or any(column.ndim != 2 or len(column) != n for column in arrays):
            raise RecordError(f"every column of a series must have one row for each of its {n} spans")
        if np.any(self.last_step < self.first_step) or np.any(self.first_step[1:] <= self.last_step[:-1]):
            raise RecordError("spans of a series must be in order of steps and must not overlap")

    def __len__(self) -> int:
        """Return the number of spans."""
        return len(self.first_step)

    def column(self, stat: str, keeps: str) -> Array:
        """Return one column, ``[n, width]``; raise KeyError if the series does not have it."""
        return self.columns[ColumnKey(stat, keeps)]

    def rows(self, selection: slice | IntArray) -> Series:
        """Return the selected spans."""
        if hasattr(self.columns, "rows"):  # columns in pieces
            return Series(self.first_step[selection], self.last_step[selection], self.columns.rows(selection))
        # In single steps several keys share an array. Their selected rows share an array too.
        picked = {id(column): column[selection] for column in unique_arrays(self.columns)}
        columns = {key: picked[id(column)] for key, column in self.columns.items()}
        return Series(self.first_step[selection], self.last_step[selection], columns)


def unique_arrays(columns: Mapping[ColumnKey, Array]) -> list[Array]:
    """Return each distinct array behind the columns, without columns that are in pieces."""
    whole: Mapping[ColumnKey, Array] = getattr(columns, "whole", columns)
    return list({id(column): column for column in whole.values()}.values())


@dataclass(frozen=True)
class Counts:
    """Exact counts of one tensor's elements."""

    size: int
    nan: int
    pos_inf: int
    neg_inf: int

    def __post_init__(self) -> None:
        """Reject negative counts and counts above the size."""
        if min(self.size, self.nan, self.pos_inf, self.neg_inf) < 0 or self.nonfinite > self.size:
            raise RecordError(f"counts must be non-negative and fit the size; got {self}")

    @property
    def nonfinite(self) -> int:
        """The number of elements that are NaN or Inf."""
        return self.nan + self.pos_inf + self.neg_inf

    @property
    def kind(self) -> Kind | None:
        """The kind to report: Inf before NaN, because Inf turns into NaN; ``None`` if all elements are finite."""
        kinds: tuple[tuple[Kind, int], ...] = (
            ("pos_inf", self.pos_inf),
            ("neg_inf", self.neg_inf),
            ("nan", self.nan),
        )
        return next((kind for kind, count in kinds if count), None)


@dataclass(frozen=True)
class Finding:
    """Something that was non-finite in the step of an alert.

    Attributes:
        role: its role in the step.
        name: name of the variable, the watched tensor or the argument; ``"loss"`` for the loss.
        counts: exact counts; ``None`` if they were not taken.
        samples: for an argument, the bad indices in its leading dimension, at most 64; else empty.
    """

    role: Role
    name: str
    counts: Counts | None
    samples: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operation:
    """A TensorFlow operation."""

    type: str
    name: str


@dataclass(frozen=True)
class Source:
    """A line of a program.

    Attributes:
        file: path, relative to the working directory of the training if the file lies below it.
        line: line number, from 1.
        function: name of the function that contains the line.
        text: the line without its indent; empty if the file could not be read.
        before: a few unchanged lines above it; only for lines that are shown.
        after: a few unchanged lines below it.
    """

    file: str
    line: int
    function: str
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operand:
    """An input of an operation during a replay.

    Attributes:
        name: name of the tensor.
        dtype: TensorFlow's name of the dtype.
        shape: shape of the value.
        counts: exact counts of its elements.
        min: the smallest finite element; ``None`` without finite elements.
        max: the largest finite element; ``None`` without finite elements.
        zeros: the number of elements that are 0.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    counts: Counts
    min: float | None
    max: float | None
    zeros: int


@dataclass(frozen=True)
class Entry:
    """How a value enters a step if no operation of the step computes it.

    Attributes:
        way: ``argument`` of the step, ``captured`` tensor from outside the step, or ``constant`` that tracing made from
            data of the program.
        shape: shape of the value.
        elements: index tuples of non-finite elements, at most eight; one empty tuple for a scalar.
    """

    way: EntryWay
    shape: tuple[int, ...] = ()
    elements: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Link:
    """One hop of the chain from the origin of a non-finite value to the tensor that a record reports.

    Attributes:
        op: the operation that produced the value; ``None`` if it entered from outside or was in a variable.
        phase: phase of the training step.
        layer: the layer, or the name scope; ``None`` if neither is known.
        kind: kind of its output.
        source: the user's line. For an operation of a gradient, the line of the forward operation; for a captured
            tensor or a constant, the line that uses it.
        variable: the variable that held the value, or whose gradient it is.
        tensor: the program's name for the argument, captured tensor or constant that held the value.
        counts: counts of its output.
        samples: bad indices in the leading dimension if that is the batch, at most 64.
        inputs: the inputs of the operation.
        stack: the Python stack that made the operation, outermost first; only for the first link.
        entry: how the value entered the step; ``None`` if an operation made it or a variable held it.
    """

    op: Operation | None
    phase: Phase
    layer: str | None
    kind: Kind
    source: Source | None
    variable: str | None = None
    tensor: str | None = None
    counts: Counts | None = None
    samples: tuple[int, ...] = ()
    inputs: tuple[Operand, ...] = ()
    stack: tuple[Source, ...] = ()
    entry: Entry | None = None


@dataclass(frozen=True)
class Replay:
    """The result of running a bad step again and checking every operation.

    Attributes:
        outcome: ``found``: the origin is known; ``finite``: this time everything was finite; ``failed``: the replay
            could not run, or exceeded its bounds.
        notes: remarks on the replay, a sentence each.
        chains: one chain per origin, in order of data flow; each leads from its origin to the reported tensor. Empty
            unless found.
        seconds: duration of the replay.
        dump: directory written by TensorFlow's debugger, relative to the run's directory, if it was kept.
    """

    outcome: ReplayOutcome
    notes: tuple[str, ...] = ()
    chains: tuple[tuple[Link, ...], ...] = ()
    seconds: float = 0.0
    dump: str | None = None

    def __post_init__(self) -> None:
        """Reject an outcome that contradicts the chains."""
        if (self.outcome == "found") != bool(self.chains) or not all(self.chains):
            raise RecordError(f"a replay must have a chain if and only if it found one; got {self.outcome!r}")


@dataclass(frozen=True)
class Alert:
    """One bad step: everything that was non-finite in it, and the steps before it.

    Attributes:
        step: the bad step.
        session: the session that met it.
        first_step: the first step that this session watched.
        action: the action that the policy took.
        findings: empty only if an error ended the step and nothing non-finite is known of it.
        window: the last steps, one by one, the bad step last. Empty if the alert is written a second time, with the
            result of its replay.
        replay: ``None`` if the step was not replayed.
        batch: file with the step's arguments, relative to the run's directory; ``None`` if it was not saved.
        notes: remarks on the batch, a sentence each.
        replica: number of the replica whose gradients the findings describe, from 0; ``None`` if there is only one.
        microbatch: number of the first bad micro-batch of an accumulated step, from 0; ``None`` if unknown.
        worker: number of the process that the findings describe; ``None`` for the process that wrote the alert.
        error: the error that ended the step early, in one line; ``None`` if the step ended normally.
    """

    step: int
    session: int
    first_step: int
    action: Action
    findings: tuple[Finding, ...]
    window: Series
    replay: Replay | None = None
    batch: str | None = None
    notes: tuple[str, ...] = ()
    replica: int | None = None
    microbatch: int | None = None
    worker: int | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        """Reject an alert that reports nothing."""
        if not self.findings and not self.error:
            raise RecordError(f"an alert must say what was non-finite; that of step {self.step} does not")


@dataclass(frozen=True)
class Origin:
    """The place of the first non-finite value of a run; ``None`` for each unknown part."""

    step: int
    phase: Phase
    layer: str | None
    variable: str | None
    tensor: str | None
    kind: Kind | None
    op: Operation | None
    source: Source | None
    counts: Counts | None
    samples: tuple[int, ...]
    replica: int | None
    worker: int | None
    microbatch: int | None
    evidence: Literal["replay", "records"]
    batch: str | None
    entry: Entry | None = None

    @property
    def is_in_batch(self) -> bool:
        """Whether the arguments of the step may hold the bad value or its cause."""
        return self.entry is None or self.entry.way == "argument"


@dataclass(frozen=True)
class Warning:  # noqa: A001 - the field's word, and the JSON's
    """A reason to inspect a run, finite or not.

    Attributes:
        kind: identifies the rule in :data:`tb_nanwatch.diagnosis.signs.WARNINGS` that gave the warning.
        first_step: the step from which the warning holds.
        layer: the layer that the warning is about; ``None`` for the whole model.
        text: the warning in words.
    """

    kind: str
    first_step: int
    layer: str | None
    text: str


@dataclass(frozen=True)
class Cause:
    """A likely cause of a non-finite value.

    Attributes:
        id: identifies the rule that found the cause.
        text: the cause in words.
        fix: a remedy in words.
        confidence: how strongly the evidence supports the cause.
    """

    id: str
    text: str
    fix: str
    confidence: Confidence


@dataclass(frozen=True)
class Verdict:
    """The answer for one run.

    Attributes:
        run: name of the run in TensorBoard.
        status: ``nonfinite``; else ``incomplete`` if a part of the log could not be read; else ``empty`` if no step was
            recorded, ``warning`` (finite, with a warning) or ``finite``.
        text: the answer in one sentence.
        steps_seen: the number of watched steps.
        first: the origin of the first non-finite value; ``None`` for a finite run.
        chain: from the origin to the reported tensor, if a replay found the origin.
        other_chains: from further origins in the same step, in order of data flow.
        notes: further remarks on the bad step and its replay, a sentence each.
        skipped_steps: the number of steps whose update did not run.
        warnings: reasons to inspect the run.
        causes: likely causes, the most useful first.
        problems: everything that is wrong with the log, a sentence each.
        unreadable: the problems that report an unreadable part of the log.
    """

    run: str
    status: Status
    text: str
    steps_seen: int
    first: Origin | None = None
    chain: tuple[Link, ...] = ()
    other_chains: tuple[tuple[Link, ...], ...] = ()
    notes: tuple[str, ...] = ()
    skipped_steps: int = 0
    warnings: tuple[Warning, ...] = ()
    causes: tuple[Cause, ...] = ()
    problems: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdicts:
    """The answer for every run of a logdir, for the command and for the page."""

    runs: tuple[Verdict, ...]
    schema: int = 1
