"""A case: a small training program, and the true origin of its first non-finite value.

The truth of each was worked out by hand and seen by running TensorFlow; nothing here was copied from a verdict.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tb_nanwatch.schema.records import EntryWay, Phase

Program = Callable[[str], None]

FORWARD_OR_LOSS: tuple[Phase, ...] = ("forward", "loss")
"""The phases of an operation outside any layer, if it does not return the loss. No mark says where a loss begins."""


@dataclass(frozen=True)
class Truth:
    """Where the first non-finite value of a program arises. Each member of a set is right.

    Attributes:
        step: counted from 0.
        phase: of the training step.
        layer: the Keras layer's path, the user's name scope, or the owner of the variable that the operation uses.
        op: types of operation, as the traced graph has them; ``None`` where the value came with the batch or a
            variable, or where a second run cannot find it.
        line: what stands behind ``# origin: `` on the line that is to be named; ``None`` where none is asked. A verdict
            that rightly names no operation need not name a line, and of a statement on several lines the first will do.
        tensor: the argument that brought it; ``None`` where that is not asked.
        samples: the bad indices in it; ``None`` where that is not asked.
        variable: that went bad; ``None`` where that is not asked.
        origins: how many there are in that step; ``None`` where that is not asked.
        way: on which it came into the step; ``None`` where that is not asked.
        also: markers of lines, or names of arguments, where further origins of the same step stand; nothing orders
            operations that do not depend on each other, so any of them may be the first.
    """

    step: int
    phase: frozenset[Phase]
    layer: frozenset[str | None]
    op: frozenset[str | None]
    line: str | None
    tensor: str | None = None
    samples: tuple[int, ...] | None = None
    variable: str | None = None
    way: EntryWay | None = None
    origins: int | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A program and its truth.

    Attributes:
        name: of the program.
        run: builds everything from a seed of its own and trains, watched, until it ends or NonFiniteError is raised.
        truth: ``None`` of a program that stays finite.
    """

    name: str
    run: Program
    truth: Truth | None

    @property
    def file(self) -> Path:
        """The module that the program stands in."""
        return Path(inspect.getfile(self.run))

    def line(self, marker: str) -> int:
        """Return the number of the one line of the module that ends with a marker."""
        lines = self.file.read_text(encoding="utf-8").splitlines()
        (number,) = (at for at, text in enumerate(lines, 1) if text.endswith(f"# origin: {marker}"))
        return number

    def lines(self, marker: str) -> set[int]:
        """Return the line of a marker, and the first of its statement: AutoGraph keeps no more of a long one."""
        number = self.line(marker)
        statements = [node for node in ast.walk(ast.parse(self.file.read_text("utf-8"))) if isinstance(node, ast.stmt)]
        around = [node for node in statements if node.lineno <= number <= (node.end_lineno or 0)]
        return {number, max(node.lineno for node in around)}


def origin(
    *,
    step: int,
    phase: Phase | Iterable[Phase],
    layer: str | Iterable[str | None] | None = None,
    op: str | Iterable[str | None] | None = None,
    line: str | None = None,
    tensor: str | None = None,
    samples: tuple[int, ...] | None = None,
    variable: str | None = None,
    way: EntryWay | None = None,
    origins: int | None = None,
    also: tuple[str, ...] = (),
) -> Callable[[Program], Case]:
    """Make a program a case; one answer may stand for a set of one. See :class:`Truth`."""
    truth = Truth(
        step=step,
        phase=_set_of(phase),
        layer=_set_of(layer),
        op=_set_of(op),
        line=line,
        tensor=tensor,
        samples=samples,
        variable=variable,
        way=way,
        origins=origins,
        also=also,
    )
    return lambda program: Case(program.__name__, program, truth)


def healthy(program: Program) -> Case:
    """Make a program a case that must raise no alarm."""
    return Case(program.__name__, program, None)


def _set_of(answers: Any) -> frozenset[Any]:
    return frozenset([answers] if answers is None or isinstance(answers, str) else answers)
