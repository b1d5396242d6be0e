"""The records: what passes between the parts, frozen, and checked where they are made.

``Header`` and ``Alert`` are what a session writes besides its spans; ``Series`` holds spans as columns; ``Verdict``
is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tb_nanwatch.errors import RecordError

Phase = Literal["input", "weights", "forward", "loss", "backward", "clip", "update", "state"]
Kind = Literal["nan", "pos_inf", "neg_inf"]
Status = Literal["finite", "nonfinite", "warning", "empty"]
Policy = Literal["raise", "record"]
ClipKind = Literal["none", "scale", "other"]
Role = Literal["input", "weight", "tensor", "loss", "gradient", "clipped"]
Action = Literal["raised", "recorded"]

PHASES: tuple[Phase, ...] = ("input", "weights", "forward", "loss", "backward", "clip", "update", "state")
"""The phases of a training step, in the order data flows through them."""

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
    """Constant for one session."""

    session: int
    variables: tuple[Variable, ...]
    tensors: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()
    policy: Policy = "raise"
    clip: ClipKind = "none"
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that could not be told apart."""
        names = [variable.name for variable in self.variables]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
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
        if len(self.last_step) != n or any(column.ndim != 2 or len(column) != n for column in self.columns.values()):
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
        columns = {key: column[selection] for key, column in self.columns.items()}
        return Series(self.first_step[selection], self.last_step[selection], columns)


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
class Alert:
    """One bad step: what was non-finite in it, and the steps that led there.

    Attributes:
        step: the bad step.
        session: the session that met it.
        first_step: the first step that this session watched.
        action: what the policy made of it.
        findings: never empty.
        window: the flight recorder at that moment, the bad step last.
    """

    step: int
    session: int
    first_step: int
    action: Action
    findings: tuple[Finding, ...]
    window: Series

    def __post_init__(self) -> None:
        """Refuse an alert about nothing."""
        if not self.findings:
            raise RecordError(f"an alert must say what was non-finite; that of step {self.step} does not")


@dataclass(frozen=True)
class Operation:
    """A TensorFlow operation."""

    type: str
    name: str


@dataclass(frozen=True)
class Source:
    """A line of the user's program."""

    file: str
    line: int
    function: str
    text: str


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


@dataclass(frozen=True)
class Link:
    """One hop of the chain from the origin to the loss."""

    op: Operation
    phase: Phase
    layer: str | None
    kind: Kind
    source: Source | None


@dataclass(frozen=True)
class Warning:  # noqa: A001 - the field's word, and the JSON's
    """Something that a finite run should be looked at for."""

    kind: Literal["exploding", "frozen"]
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
        status: ``finite``, ``nonfinite``, ``warning`` (finite, but a warning stands) or ``empty``.
        text: the answer in one sentence.
        steps_seen: how many steps were watched in all.
        problems: what could not be read of the run's log, if anything; a sentence each.
    """

    run: str
    status: Status
    text: str
    steps_seen: int
    first: Origin | None = None
    chain: tuple[Link, ...] = ()
    skipped_steps: int = 0
    warnings: tuple[Warning, ...] = ()
    causes: tuple[Cause, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdicts:
    """The answer for every run of a logdir, as the CLI prints it and the page gets it."""

    runs: tuple[Verdict, ...]
    schema: int = 1
