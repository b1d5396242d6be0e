"""Causes that follow from an operation and the ranges of its inputs, as tables of rules.

A rule gives a cause only if the numbers allow no other explanation. An operation without a rule has no cause. To add a
cause, add a :class:`~tb_nanwatch.diagnosis.operations.rule.Rule` to the table of the module that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tb_nanwatch.diagnosis.operations import domains, infinities, overflow, slopes, updates
from tb_nanwatch.diagnosis.operations.rule import Rule, makes_nan
from tb_nanwatch.schema.records import Cause, Link

# The first rule that applies wins. A value outside a function's domain explains more than a large value does.
RULES: Final[tuple[Rule, ...]] = (
    *slopes.RULES,
    *domains.RULES,
    *infinities.RULES,
    *updates.RULES,
    *overflow.RULES,
)


def causes_of_chain(chain: Sequence[Link], *, is_first_step: bool = False) -> tuple[Cause, ...]:
    """Return the causes of the first operation of a chain, the most useful first.

    An infinite constant of the program is often intended, as in a mask. Then the operation that turns it into NaN
    comes first.

    Args:
        chain: from the origin to the reported tensor.
        is_first_step: whether no watched update came before.
    """
    is_intended = chain[0].op is not None and chain[0].op.type == "Const" and chain[0].kind != "nan"
    nan_link = next((link for link in chain[1:] if makes_nan(link)), None) if is_intended else None
    links = [link for link in (nan_link, chain[0]) if link is not None]
    causes = (cause_of_operation(link, is_first_step=is_first_step) for link in links)
    return tuple(cause for cause in causes if cause is not None)


def cause_of_operation(link: Link, *, is_first_step: bool = False) -> Cause | None:
    """Return the cause by the first rule that applies; ``None`` if no rule applies.

    Args:
        link: the link with the operation.
        is_first_step: whether no watched update came before.
    """
    causes = (rule.cause(link, is_first_step=is_first_step) for rule in RULES)
    return next((cause for cause in causes if cause is not None), None)
