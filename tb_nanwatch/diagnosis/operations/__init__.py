"""Causes read off an operation and the ranges of what it was given, as a table of small rules.

A rule speaks only where the figures leave no other reading. An operation that no rule knows is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tb_nanwatch.diagnosis.operations import domains, infinities, overflow, slopes, updates
from tb_nanwatch.diagnosis.operations.rule import Rule, makes_nan
from tb_nanwatch.schema.records import Cause, Link

# A value out of a function's domain says more than that something was large, so it is asked for first.
RULES: Final[tuple[Rule, ...]] = (
    *slopes.RULES,
    *domains.RULES,
    *infinities.RULES,
    *updates.RULES,
    *overflow.RULES,
)


def causes_of_chain(chain: Sequence[Link], *, is_first_step: bool = False) -> tuple[Cause, ...]:
    """Return why the operation at the head of a chain made NaN or Inf, the most useful reason first.

    An Inf that stands in the program is often meant, as a mask is: then what made NaN of it is asked first.

    Args:
        chain: from the origin to what went bad.
        is_first_step: whether no watched update came before.
    """
    is_meant = chain[0].op is not None and chain[0].op.type == "Const" and chain[0].kind != "nan"
    turned = next((link for link in chain[1:] if makes_nan(link)), None) if is_meant else None
    causes = (cause_of_operation(link, is_first_step=is_first_step) for link in (turned, chain[0]) if link is not None)
    return tuple(cause for cause in causes if cause is not None)


def cause_of_operation(link: Link, *, is_first_step: bool = False) -> Cause | None:
    """Return why an operation made NaN or Inf, by the first rule that can tell; ``None`` where none can.

    Args:
        link: the origin.
        is_first_step: whether no watched update came before.
    """
    causes = (rule.cause(link, is_first_step=is_first_step) for rule in RULES)
    return next((cause for cause in causes if cause is not None), None)
