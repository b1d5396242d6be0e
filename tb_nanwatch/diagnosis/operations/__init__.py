"""Causes read off an operation and the ranges of what it was given, as a table of small rules.

A rule speaks only where the figures leave no other reading. An operation that no rule knows is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tb_nanwatch.diagnosis.operations import domains, infinities, overflow, slopes, updates
from tb_nanwatch.diagnosis.operations.rule import Rule
from tb_nanwatch.schema.records import Cause, Link

# A value out of a function's domain says more than that something was large, so it is asked for first.
RULES: Final[tuple[Rule, ...]] = (
    *slopes.RULES,
    *domains.RULES,
    *infinities.RULES,
    *updates.RULES,
    *overflow.RULES,
)


def causes_of_chain(chain: Sequence[Link]) -> tuple[Cause, ...]:
    """Return why the operation at the head of a chain made NaN or Inf, the most useful reason first.

    An Inf that stands in the program is often meant, as a mask is: then what made NaN of it is asked first.

    Args:
        chain: from the origin to what went bad.
    """
    is_meant = chain[0].op is not None and chain[0].op.type == "Const" and chain[0].kind != "nan"
    turned = next((link for link in chain[1:] if link.kind == "nan"), None) if is_meant else None
    causes = (cause_of_operation(link) for link in (turned, chain[0]) if link is not None)
    return tuple(cause for cause in causes if cause is not None)


def cause_of_operation(link: Link) -> Cause | None:
    """Return why an operation made NaN or Inf, by the first rule that can tell; ``None`` where none can.

    Args:
        link: the origin.
    """
    causes = (rule.cause(link) for rule in RULES)
    return next((cause for cause in causes if cause is not None), None)
