"""What a rule about operations is."""

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


class Seen(NamedTuple):
    """A link of a chain, and when it was.

    Attributes:
        link: with the operation.
        is_first_step: whether no watched update came before.
    """

    link: Link
    is_first_step: bool = False


def _always(_: Seen) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """A way in which some operations make NaN or Inf, and what to do about it.

    Attributes:
        id: of the cause.
        operations: the types that it is about.
        text: says what happened, quoting the figures; ``None`` where they do not prove it.
        fix: what to do about it. ``{1e-7}`` in it stands for that number, or for one that is not 0 in float16, and
            ``{mask}`` for a number that stands for -Inf in a mask.
        is_for: whether the fix is the right one there.
    """

    id: str
    operations: frozenset[str]
    text: Callable[[Link], str | None]
    fix: str | Callable[[Link], str]
    is_for: Callable[[Seen], bool] = _always

    def cause(self, link: Link, *, is_first_step: bool = False) -> Cause | None:
        """Return the cause that the rule sees in a link; ``None`` where it sees none.

        Args:
            link: the origin, or a later one.
            is_first_step: whether no watched update came before.
        """
        if link.op is None or link.op.type not in self.operations or not self.is_for(Seen(link, is_first_step)):
            return None
        text = self.text(link)
        if text is None:
            return None
        return Cause(self.id, text, _fitting(self.fix if isinstance(self.fix, str) else self.fix(link), link), "high")


def type_of(link: Link) -> str:
    """Return the type of a link's operation; empty where it has none."""
    return link.op.type if link.op else ""


def makes_nan(link: Link) -> bool:
    """Return whether NaN is among what an operation made: beside Inf, the kind of the link is Inf."""
    return link.kind == "nan" or (link.counts is not None and link.counts.nan > 0)


def is_half(seen: Seen) -> bool:
    """Return whether an operation was given float16."""
    return any(operand.dtype == "float16" for operand in seen.link.inputs)


def in_phase(*phases: str) -> Callable[[Seen], bool]:
    """Return the condition that an operation is of one of some phases."""
    return lambda seen: seen.link.phase in phases


def _fitting(fix: str, link: Link) -> str:
    half = is_half(Seen(link))
    fix = _SMALL.sub(_SMALL_IN_HALF if half else r"\1", fix)
    return fix.replace(_MASK, _HALF_MASK if half else "-1e9")
