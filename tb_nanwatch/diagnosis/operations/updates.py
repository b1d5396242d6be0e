"""Rules for the fused operations of optimizers: a bad learning rate, a bad epsilon, an overflow of the update."""

from __future__ import annotations

from typing import Final

from tb_nanwatch.diagnosis.operations.ranges import largest, magnitude, number, peak
from tb_nanwatch.diagnosis.operations.rule import Rule, type_of
from tb_nanwatch.schema.records import Link, Operand

# Replays leave out the handles of variables, which come first. So positions count from the last input.
_LEARNING_RATE: Final = {
    "ResourceApplyGradientDescent": -2,
    "ResourceApplyMomentum": -3,
    "ResourceApplyKerasMomentum": -3,
    "ResourceApplyAdagrad": -2,
    "ResourceApplyAdagradV2": -3,
    "ResourceApplyAdam": -5,
    "ResourceApplyAdaMax": -5,
    "ResourceApplyRMSProp": -5,
    "ResourceApplyCenteredRMSProp": -5,
}
_PLAIN: Final = {
    "ResourceApplyGradientDescent": -1,
    "ResourceApplyMomentum": -2,
    "ResourceApplyKerasMomentum": -2,
}
"""Position of the gradient in operations that multiply it only by the learning rate."""
_EPSILON: Final = {
    "ResourceApplyAdagradV2": -2,
    "ResourceApplyAdam": -2,
    "ResourceApplyAdaMax": -2,
    "ResourceApplyRMSProp": -2,
    "ResourceApplyCenteredRMSProp": -2,
}


def _learning_rate(link: Link) -> str | None:
    rate = _input(link, _LEARNING_RATE)
    if rate is None or not rate.counts.nonfinite:
        return None
    return f"The learning rate that {type_of(link)} was given is not finite."


def _epsilon(link: Link) -> str | None:
    epsilon = _input(link, _EPSILON)
    if epsilon is None or not epsilon.zeros:
        return None
    return f"The epsilon that {type_of(link)} was given is 0 in {epsilon.dtype}, so it divides by a root that may be 0."


def _step_out_of_range(link: Link) -> str | None:
    rate, gradient = _input(link, _LEARNING_RATE), _input(link, _PLAIN)
    if rate is None or gradient is None or peak(rate) * peak(gradient) <= largest(rate.dtype):
        return None
    product = f"A learning rate of {number(peak(rate))} times gradients with {magnitude(gradient)}"
    return f"{product} leaves the range of {rate.dtype}."


def _input(link: Link, positions: dict[str, int]) -> Operand | None:
    position = positions.get(type_of(link))
    return None if position is None or len(link.inputs) < -position else link.inputs[position]


RULES: Final = (
    Rule(
        "learning-rate",
        frozenset(_LEARNING_RATE),
        _learning_rate,
        "Check what the learning-rate schedule returns at that step. One that divides by the step is Inf at step 0: "
        "let it divide by step + 1.",
    ),
    Rule(
        "optimizer-epsilon",
        frozenset(_EPSILON),
        _epsilon,
        "Raise the optimizer's epsilon (1e-3 in half precision), and keep variables and slots in float32.",
    ),
    Rule(
        "update-overflow",
        frozenset(_PLAIN),
        _step_out_of_range,
        "Lower the learning rate, or clip the gradients by their global norm.",
    ),
)
