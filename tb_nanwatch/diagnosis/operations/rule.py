"""The rule that explains a non-finite output of an operation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from tb_nanwatch.schema.records import Cause, Link

_SMALL: Final = re.compile(r"\{(1e-\d+)\}")
_SMALL_IN_HALF: Final = "1e-3"
_MASK: Final = "{mask}"
_HALF_MASK: Final = "tf.float16.min / 2"


class Case(NamedTuple):
    """The operation that a rule examines.

    Attributes:
        link: the link of the chain with the operation.
        is_first_step: whether no watched update came before.
    """

    link: Link
    is_first_step: bool = False


def _always(_: Case) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """One way in which operations make NaN or Inf, and a remedy.

    Attributes:
        id: identifies the cause.
        operations: the operation types that it explains.
        text: function that returns the cause in words with its numbers; ``None`` if the numbers do not prove it.
        fix: the remedy in words. ``{1e-7}`` becomes that number, or in float16 a number that is not 0 there.
            ``{mask}`` becomes a number that replaces -Inf in a mask.
        applies: whether the remedy fits the case.
    """

    id: str
    operations: frozenset[str]
    text: Callable[[Link], str | None]
    fix: str | Callable[[Link], str]
    applies: Callable[[Case], bool] = _always

    def cause(self, link: Link, *, is_first_step: bool = False) -> Cause | None:
        """Return the cause if the rule applies to a link; else ``None``.

        Args:
            link: the link with the operation.
            is_first_step: whether no watched update came before.
        """
        if link.op is None or link.op.type not in self.operations or not self.applies(Case(link, is_first_step)):
            return None
        text = self.text(link)
        if text is None:
            return None
        return Cause(self.id, text, _filled(self.fix if isinstance(self.fix, str) else self.fix(link), link), "high")


def type_of(link: Link) -> str:
    """Return the type of a link's operation; empty without an operation."""
    return link.op.type if link.op else ""


def makes_nan(link: Link) -> bool:
    """Return whether the output of an operation holds NaN. The kind alone does not show it if Inf is there too."""
    return link.kind == "nan" or (link.counts is not None and link.counts.nan > 0)


def is_half(case: Case) -> bool:
    """Return whether an input of the operation is float16."""
    return any(operand.dtype == "float16" for operand in case.link.inputs)


def in_phase(*phases: str) -> Callable[[Case], bool]:
    """Return the condition that the operation is in one of the phases."""
    return lambda case: case.link.phase in phases


def _filled(fix: str, link: Link) -> str:
    half = is_half(Case(link))
    fix = _SMALL.sub(_SMALL_IN_HALF if half else r"\1", fix)
    return fix.replace(_MASK, _HALF_MASK if half else "-1e9")
