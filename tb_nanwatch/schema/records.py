"""The records: what passes between the parts, frozen, and checked where they are made.

``Header`` and ``Alert`` are what a session writes besides its spans; ``Series`` holds spans as columns; ``Verdict``
is the answer.
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

PHASES: tuple[Phase, ...] = ("input", "weights", "forward", "loss", "backward", "clip", "update", "state")
"""The phases of a training step, in the order data flows through them."""
STEPS_BELOW: Final = 2**50
"""JSON's numbers and the arithmetic of thinning hold steps below this exactly; more than any training has."""

Array = npt.NDArray[np.generic]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
DoubleArray = npt.NDArray[np.float64]
KindArray = npt.NDArray[np.uint8]


class ColumnKey(NamedTuple):
    """Names one column of a series: a statistic and what is kept of it."""

    stat: str
    keeps: str


@dataclass(frozen=True)
class Variable:
    """A trainable variable as the header lists it.

    Attributes:
        name: unique within the run.
        layer: its owner, the name less its last part; ``None`` where it has none.
        shape: static shape; -1 for an unknown dimension.
        dtype: TensorFlow's name of the dtype.
        backward_order: place of its gradient in the backward pass, 0 first; ``None`` where that is not known.
    """

    name: str
    layer: str | None
    shape: tuple[int, ...]
    dtype: str
    backward_order: int | None = None


@dataclass(frozen=True)
class Header:
    """Constant for one session.

    Attributes:
        session: its number in the run.
        variables: in column order.
        tensors: names of watched tensors, in column order.
        stats: keys of the catalogue that it records.
        policy: the user's.
        clip: what clipping does to a gradient.
        versions: of Python and the packages.
        worker: which process of several it is, from 0; ``None`` where there is but one.
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
        """Refuse names that could not be told apart."""
        names = [variable.name for variable in self.variables]
        if len(set(names)) != len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise RecordError(f"names of variables must be unique in a header; {twice!r} stands there twice")

    def width(self, scope: str) -> int:
        """Return how many columns wide a statistic of ``scope`` is."""
        return {"variable": len(self.variables), "tensor": len(self.tensors), "step": 1}[scope]


@dataclass(frozen=True, eq=False)
class Series:
    """Spans of consecutive steps, as columns; a span of length 1 is one step as it was measured.

    Attributes:
        first_step: int64 ``[n]``, strictly increasing.
        last_step: int64 ``[n]``, inclusive; a span ends before the next begins.
        columns: each ``[n, width]``; float32 for min, max and mean (NaN where no step had a finite value), int64 for
            ``count``, ``nonfinite`` and ``first_nonfinite``, uint8 for ``kinds``.
    """

    first_step: IntArray
    last_step: IntArray
    columns: Mapping[ColumnKey, Array]

    def __post_init__(self) -> None:
        """Refuse columns of unequal length, and spans that overlap or run backwards."""
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
        """Return one column, ``[n, width]``; raises KeyError where the series has no such column."""
        return self.columns[ColumnKey(stat, keeps)]

    def rows(self, selection: slice | IntArray) -> Series:
        """Return the spans that ``selection`` picks."""
        if hasattr(self.columns, "rows"):  # some are in pieces
            return Series(self.first_step[selection], self.last_step[selection], self.columns.rows(selection))
        # Where several keys have one array, as in single steps, their rows are one array too.
        picked = {id(column): column[selection] for column in unique_arrays(self.columns)}
        columns = {key: picked[id(column)] for key, column in self.columns.items()}
        return Series(self.first_step[selection], self.last_step[selection], columns)


def unique_arrays(columns: Mapping[ColumnKey, Array]) -> list[Array]:
    """Return every array once that stands behind some column; of one that is in pieces, none."""
    there: Mapping[ColumnKey, Array] = getattr(columns, "whole", columns)
    return list({id(column): column for column in there.values()}.values())


@dataclass(frozen=True)
class Counts:
    """Exact counts of one tensor's elements."""

    size: int
    nan: int
    pos_inf: int
    neg_inf: int

    def __post_init__(self) -> None:
        """Refuse counts that do not add up."""
        if min(self.size, self.nan, self.pos_inf, self.neg_inf) < 0 or self.nonfinite > self.size:
            raise RecordError(f"counts must be non-negative and fit the size; got {self}")

    @property
    def nonfinite(self) -> int:
        """Elements that are NaN or Inf."""
        return self.nan + self.pos_inf + self.neg_inf

    @property
    def kind(self) -> Kind | None:
        """The kind that names the tensor: Inf before NaN, since Inf turns into NaN; ``None`` if all are finite."""
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
        role: what it is to the step.
        name: of the variable, the watched tensor or the argument; ``"loss"`` for the loss.
        counts: exact; ``None`` where they were not taken.
        samples: where an argument is bad, the indices in its leading dimension (at most 64); else empty.
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
        file: relative to the working directory of the training, where it lies below it.
        line: counted from 1.
        function: that the line is in.
        text: the line, without its indent; empty where the file could not be read.
        before: the lines above it, as they stand in the file; at most a few, and only for lines that are shown.
        after: the lines below it.
    """

    file: str
    line: int
    function: str
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operand:
    """An input of an operation, as a replay saw it.

    Attributes:
        name: of the tensor.
        dtype: TensorFlow's name of it.
        shape: of the value.
        counts: exact.
        min: the smallest finite element; ``None`` where there is none.
        max: the largest.
        zeros: how many elements are 0.
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
    """How a value came into a step that no operation of the step computed.

    Attributes:
        way: ``argument`` of the step, ``captured`` tensor from outside, or ``constant`` that the program's data became
            as the step was traced.
        shape: of the value.
        elements: the indices of the non-finite elements, one tuple each, at most eight; of a scalar one empty tuple.
    """

    way: EntryWay
    shape: tuple[int, ...] = ()
    elements: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Link:
    """One hop of the chain from where a value first was non-finite to what went bad.

    Attributes:
        op: the operation that brought the value forth; ``None`` where it came from outside or stood in a variable.
        phase: of the training step.
        layer: the layer, or the name scope; ``None`` where neither is known.
        kind: of its output.
        source: the user's line; for an operation of a gradient, the line that made the forward operation; for what a
            step captured or made a constant of, the line that uses it.
        variable: the variable it stood in, or whose gradient it is.
        tensor: the argument, the captured tensor or the constant that brought it, as the program names it.
        counts: of its output.
        samples: where its leading dimension is the batch, the bad indices in it (at most 64).
        inputs: what the operation was given.
        stack: the Python stack that made it, outermost first; only for the first link.
        entry: how it came into the step; ``None`` for what an operation made or a variable held.
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
    """What came of running a bad step again with every operation looked at.

    Attributes:
        outcome: ``found``: the origin is known; ``finite``: everything was, this time; ``failed``: it could not be
            run, or not within its bounds.
        notes: what there is to say about it; a sentence each.
        chains: from each origin, first link, to what went bad; in order of data flow. Empty unless found.
        seconds: that it took.
        dump: the folder with what TensorFlow's debugger wrote, relative to the run's, if it was kept.
    """

    outcome: ReplayOutcome
    notes: tuple[str, ...] = ()
    chains: tuple[tuple[Link, ...], ...] = ()
    seconds: float = 0.0
    dump: str | None = None

    def __post_init__(self) -> None:
        """Refuse an answer without its evidence."""
        if (self.outcome == "found") != bool(self.chains) or not all(self.chains):
            raise RecordError(f"a replay must have a chain if and only if it found one; got {self.outcome!r}")


@dataclass(frozen=True)
class Alert:
    """One bad step: what was non-finite in it, and the steps that led there.

    Attributes:
        step: the bad step.
        session: the session that met it.
        first_step: the first step that this session watched.
        action: what the policy made of it.
        findings: empty only where the step did not end, and nothing non-finite is known of it.
        window: the flight recorder at that moment, the bad step last. Of an alert that is written a second time, with
            what its replay brought, it is empty.
        replay: ``None`` where there was none.
        batch: the file with the step's arguments, relative to the run's directory; ``None`` if it was not saved.
        notes: what there is to say about that; a sentence each.
        replica: whose gradients the findings are of, from 0; ``None`` where there is but one.
        microbatch: of the accumulated step, the first that was bad, from 0; ``None`` where that is not known.
        worker: whose findings these are, of several processes; ``None`` for the one that wrote it.
        error: that ended the step before it was whole, in one line; ``None`` where the step ended.
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
        """Refuse an alert about nothing."""
        if not self.findings and not self.error:
            raise RecordError(f"an alert must say what was non-finite; that of step {self.step} does not")


@dataclass(frozen=True)
class Origin:
    """Where the first non-finite value of a run stood. What is not known is ``None``."""

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
        """Whether the arguments of the step may hold what was bad, or what led to it."""
        return self.entry is None or self.entry.way == "argument"


@dataclass(frozen=True)
class Warning:  # noqa: A001 - the field's word, and the JSON's
    """Something that a finite run should be looked at for."""

    kind: Literal["exploding", "frozen", "accumulated-sum", "unfinished-step"]
    first_step: int
    layer: str | None
    text: str


@dataclass(frozen=True)
class Cause:
    """A likely reason, and what to do about it."""

    id: str
    text: str
    fix: str
    confidence: Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Verdict:
    """The answer for one run.

    Attributes:
        run: its name, as TensorBoard shows it.
        status: ``nonfinite``; else ``incomplete`` if something of the log could not be read; else ``empty`` if no step
            was recorded, ``warning`` (finite, but a warning stands) or ``finite``.
        text: the answer in one sentence.
        steps_seen: how many steps were watched in all.
        first: where and when it began; ``None`` of a run that stayed finite.
        chain: from the origin to what went bad, if a replay found it.
        other_chains: from further origins in the same step, in order of data flow.
        notes: what the replay of the bad step has to say besides; a sentence each.
        problems: what is wrong with the run's log, if anything; a sentence each.
        unreadable: which of these say that something of the log could not be read.
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
    """The answer for every run of a logdir, as the CLI prints it and the page gets it."""

    runs: tuple[Verdict, ...]
    schema: int = 1
