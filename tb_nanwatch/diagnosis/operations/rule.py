"""What a rule about operations is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tb_nanwatch.schema.records import Cause, Link


@dataclass(frozen=True)
class Rule:
    """A way in which some operations make NaN or Inf.

    Attributes:
        id: of the cause.
        operations: the types that it is about.
        text: says what happened, quoting the figures; ``None`` where they do not prove it.
        fix: what to do about it, or what says so.
    """

    id: str
    operations: frozenset[str]
    text: Callable[[Link], str | None]
    fix: str | Callable[[Link], str]

    def cause(self, link: Link) -> Cause | None:
        """Return the cause that the rule sees in a link; ``None`` where it sees none."""
        text = self.text(link) if link.op and link.op.type in self.operations else None
        if text is None:
            return None
        return Cause(self.id, text, self.fix if isinstance(self.fix, str) else self.fix(link), "high")


def type_of(link: Link) -> str:
    """Return the type of a link's operation; empty where it has none."""
    return link.op.type if link.op else ""
