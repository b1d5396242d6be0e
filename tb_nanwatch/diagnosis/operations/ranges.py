"""The ranges of dtypes, and phrases about the inputs of an operation."""

from __future__ import annotations

from typing import Final

from tb_nanwatch.schema.records import Operand

_LARGEST: Final = {"float16": 65504.0, "float64": 1.7976931348623157e308, "complex128": 1.7976931348623157e308}
_LARGEST_OTHER: Final = 3.4028234663852886e38
SMALLEST_NORMAL: Final = 1.1754943508222875e-38
"""The smallest normal float32. Many kernels treat smaller numbers as 0."""


def largest(dtype: str) -> float:
    """Return the largest finite number of a floating dtype. For bfloat16 it is that of float32, which is close.

    Example:
        >>> largest("float16")
        65504.0
    """
    return _LARGEST.get(dtype, _LARGEST_OTHER)


def peak(operand: Operand) -> float:
    """Return the largest magnitude of the finite elements; 0 without finite elements."""
    return max(abs(operand.min or 0.0), abs(operand.max or 0.0))


def nearest_to_zero(operand: Operand) -> float:
    """Return the smallest magnitude of the elements if all have the same sign; else 0."""
    if operand.min is None or operand.max is None or operand.min <= 0 <= operand.max:
        return 0.0
    return min(abs(operand.min), abs(operand.max))


def count_inf(operand: Operand) -> int:
    """Return the number of elements that are +Inf or -Inf."""
    return operand.counts.pos_inf + operand.counts.neg_inf


def number(value: float) -> str:
    """Format a number for a sentence, with three digits.

    Example:
        >>> number(2.5e19), number(0.0)
        ('2.5e+19', '0')
    """
    return f"{value:.3g}"


def share(count: int, operand: Operand) -> str:
    """Return a phrase for a number of elements of an operand.

    Example:
        >>> from tb_nanwatch.schema.records import Counts
        >>> share(2, Operand("x", "float32", (640,), Counts(640, 0, 0, 0), 0.0, 1.0, 2))
        '2 of 640 elements'
    """
    return f"{count:,} of {operand.counts.size:,} element{'' if operand.counts.size == 1 else 's'}"


def zeros(operand: Operand) -> str:
    """Return the number of zeros in parentheses; empty without zeros."""
    if not operand.zeros:
        return ""
    return f" ({share(operand.zeros, operand)} {'is' if operand.zeros == 1 else 'are'} 0)"


def magnitude(operand: Operand) -> str:
    """Return a phrase for the largest magnitude of the elements."""
    return f"values up to {number(peak(operand))}"
