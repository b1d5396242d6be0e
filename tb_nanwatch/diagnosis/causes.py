"""Likely causes, as a table of small rules: each looks at the evidence, and either speaks or does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tb_nanwatch.diagnosis.accumulation import Totals
from tb_nanwatch.diagnosis.operations import causes_of_chain
from tb_nanwatch.diagnosis.origin import First
from tb_nanwatch.diagnosis.sentences import shortened
from tb_nanwatch.diagnosis.signs import Explosion, norm_limit
from tb_nanwatch.schema.records import Cause, EntryWay, Origin, Variable


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a rule may look at."""

    first: First
    explosion: Explosion | None
    total: Totals | None = None

    @property
    def origin(self) -> Origin:
        """The origin that a cause is sought for."""
        return self.first.origin

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables that the origin may mean: the one it names, those of its layer, or all."""
        origin, variables = self.origin, self.first.session.header.variables
        if origin.variable is not None:
            return tuple(variable for variable in variables if variable.name == origin.variable)
        return tuple(variable for variable in variables if origin.layer in (None, variable.layer))


Rule = Callable[[Evidence], Cause | None]


def likely_causes(evidence: Evidence) -> tuple[Cause, ...]:
    """Return the causes that the evidence speaks for, the most useful first; none where it speaks for none."""
    rules = RULES if evidence.origin.op else RULES + WITHOUT_OPERATION
    first = evidence.first
    seen = causes_of_chain(first.chains[0], is_first_step=first.is_first_step) if first.chains else ()
    return (*seen, *(cause for rule in rules for cause in [rule(evidence)] if cause is not None))


def _exploding_gradients(evidence: Evidence) -> Cause | None:
    explosion = evidence.explosion
    if explosion is None or evidence.origin.phase in {"input", "weights"}:
        return None
    return Cause(
        id="exploding-gradients",
        text=f"The gradients exploded first: their global norm, {explosion.before:.3g} in the median until "
        f"step {explosion.first_step:,}, rose to {explosion.peak:.3g} by step {explosion.last_step:,}.",
        fix="Lower the learning rate, clip the gradients by their global norm, or warm the learning rate up.",
        confidence="high" if explosion.spans > 1 else "medium",
    )


def _accumulated_sum(evidence: Evidence) -> Cause | None:
    total = evidence.total
    if total is None or evidence.origin.phase in {"input", "weights"} or not (total.may_grow or evidence.explosion):
        return None
    return Cause(
        id="accumulated-sum",
        text=f"The gradients that were applied are the sum of {total.microbatches:,} micro-batches, {total.ratio:.3g} "
        "times as large as those of one in the median, and not their mean.",
        fix="Divide the total by the number of micro-batches, or each loss, unless the learning rate was chosen for "
        "the sum.",
        confidence="high" if total.grows else "medium" if evidence.explosion else "low",
    )


def _bad_input(evidence: Evidence) -> Cause | None:
    if evidence.origin.phase != "input":
        return None
    way = "argument" if evidence.origin.entry is None else evidence.origin.entry.way
    return Cause(id="bad-input", text=_HELD[way], fix=_CHECKS[way], confidence="high")


_HELD: Final[dict[EntryWay, str]] = {
    "argument": "The step was given the value: no operation of the step made it.",
    "captured": "The tensor held the value before the step ran, and it is no argument of the step.",
    "constant": "The program's data held the value, and the step made a constant of it: it is no argument of the step.",
}
_CHECKS: Final[dict[EntryWay, str]] = {
    "argument": "Check the data where it is made (missing values, a division by a zero deviation, a broken file), and "
    "leave such samples out.",
    "captured": "Check what computed it before training, such as the mean and the deviation that a preprocessing layer "
    "adapted to data with missing values.",
    "constant": "Check the array or number where it is made (missing values, a division by a count of 0), and put a "
    "finite number in its place; for a mask a large finite one that fits the dtype.",
}


def _bad_start(evidence: Evidence) -> Cause | None:
    if evidence.origin.phase != "weights":
        return None
    return Cause(
        id="bad-start",
        text="The variable was so when the first watched step began: no watched step made it so.",
        fix="Check the initializer and the checkpoint it was restored from; go back to an older checkpoint.",
        confidence="high",
    )


def _bad_scalar(evidence: Evidence) -> Cause | None:
    recorded = evidence.first.recorded
    if evidence.origin.phase != "update" or recorded.phase != "update" or recorded.tensor is None:
        return None
    return Cause(
        id="bad-scalar",
        text="The gradients were finite, a number that the update multiplies them by was not: the learning rate, a "
        "momentum or a weight decay.",
        fix="Look at what the learning-rate schedule returns at that step: one that divides by the step is Inf at step "
        "0, and a power or a root of what is left is NaN after the last step.",
        confidence="high",
    )


def _bad_update(evidence: Evidence) -> Cause | None:
    if evidence.origin.phase != "update" or evidence.origin.tensor is not None:
        return None
    return Cause(
        id="bad-update",
        text="The gradients were finite, the variable after the update was not: an epsilon that is 0 in the "
        "variable's dtype, a learning rate that is far too large or not finite, a slot of the optimizer that is "
        "not, or something that set the variable between two steps.",
        fix="Raise the optimizer's epsilon (1e-3 in half precision), look at what the learning-rate "
        "schedule returns at that step, and keep variables and slots in float32.",
        confidence="medium" if evidence.explosion is None else "low",
    )


def _clip_overflow(evidence: Evidence) -> Cause | None:
    if evidence.origin.phase != "clip":
        return None
    norm = evidence.first.at_bad_step("global_norm")
    is_out_of_range = norm >= min(map(norm_limit, evidence.variables), default=math.inf)
    figure = f" (their global norm is {norm:.3g})" if is_out_of_range else ""
    return Cause(
        id="clip-overflow",
        text=f"The gradients were finite, clipping was not: their squares overflow in the norm{figure}."
        if is_out_of_range
        else "The gradients were finite, clipping was not: a division by a norm of 0, or a product that overflows.",
        fix="Divide the gradients by their largest element before their norm is taken, or clip by value "
        "first; then ask why they are so large."
        if is_out_of_range
        else "Add an epsilon to the norm that the gradients are divided by, or use tf.clip_by_global_norm.",
        confidence="high" if is_out_of_range else "low",
    )


def _backward_only(evidence: Evidence) -> Cause | None:
    loss_was_finite = not math.isnan(evidence.first.at_bad_step("loss"))
    if evidence.origin.phase != "backward" or evidence.explosion is not None or not loss_was_finite:
        return None
    return Cause(
        id="backward-only",
        text="The loss was finite, its derivative was not: a root, norm or logarithm has no finite slope "
        "at 0, and tf.where multiplies the slope of the branch it does not take by 0, which makes NaN of "
        "Inf. Or a NaN, of a bad sample too, was swallowed by a relu or max pooling on its way to the loss.",
        fix="Add an epsilon inside the root, norm or logarithm; with tf.where, make the input of the other "
        "branch safe as well. Make the batch an argument of the watched step, so that it is looked at.",
        confidence="low",
    )


def _loss_alone(evidence: Evidence) -> Cause | None:
    if evidence.origin.phase not in {"loss", "forward"} or evidence.explosion is not None:
        return None
    return Cause(
        id="forward-range",
        text="The watched variables were finite as the step began: something between them and there left the range, "
        "such as log(0), 0/0, the root of a negative number, an exp or a square that overflows. Or it came with a "
        "variable that is not watched, or with a batch that is no argument of the watched step: nothing looked at "
        "those.",
        fix="Watch what goes into such operations with watch.tensor, and keep them in range: an epsilon, a clip, or "
        "TensorFlow's own cross-entropy from logits.",
        confidence="low",
    )


def _bad_state(evidence: Evidence) -> Cause | None:
    origin = evidence.origin
    # What the records have of the state was made so by the step; what a replay finds there, before it.
    if origin.phase != "state" or origin.variable is None or origin.evidence == "records":
        return None
    return Cause(
        id="bad-state",
        text=f"{shortened(origin.variable)} was not finite as the step began: no operation of this step made it so.",
        fix="Check what sets it: its initializer, a checkpoint, a learning-rate schedule, or the moving statistics of "
        "an earlier batch.",
        confidence="high",
    )


WITHOUT_OPERATION: Final[tuple[Rule, ...]] = (
    _loss_alone,
    _backward_only,
    _clip_overflow,
    _bad_update,
    _bad_state,
)
"""What the records alone suggest: silent where the operation is known."""
RULES: Final[tuple[Rule, ...]] = (_bad_input, _bad_start, _bad_scalar, _exploding_gradients, _accumulated_sum)
