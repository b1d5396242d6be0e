"""Likely causes of the first bad step, as a table of rules. To add a cause, add an entry to :data:`RULES`.

Causes that depend on an operation and its inputs are in :mod:`tb_nanwatch.diagnosis.operations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tb_nanwatch.diagnosis.operations import causes_of_chain, domains, overflow
from tb_nanwatch.diagnosis.origin import First
from tb_nanwatch.diagnosis.sentences import shorten
from tb_nanwatch.diagnosis.signs import Signs, norm_limit
from tb_nanwatch.schema.records import PHASES, Cause, Confidence, EntryWay, Origin, Phase, Variable


@dataclass(frozen=True, eq=False)
class Clues:
    """The input of a rule: the first bad step, and the signs of trouble before it."""

    first: First
    signs: Signs

    @property
    def origin(self) -> Origin:
        """The origin to explain."""
        return self.first.origin

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables that the origin may be: the named variable, all of its layer, or all of the model."""
        origin, variables = self.origin, self.first.session.header.variables
        if origin.variable is not None:
            return tuple(variable for variable in variables if variable.name == origin.variable)
        return tuple(variable for variable in variables if origin.layer in (None, variable.layer))


def _always(_: Clues) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """One likely cause and its remedy.

    Attributes:
        id: identifies the cause.
        phases: phases of the origin in which the cause is possible.
        text: the cause in words, or a function that returns ``None`` if the clues do not support the cause.
        fix: the remedy in words.
        confidence: how strongly the clues support the cause.
        applies: whether the cause is possible, given the clues.
        explains_operations: whether the rule also applies if a replay found the operation. A rule that only guesses at
            the operation does not.
    """

    id: str
    phases: frozenset[Phase]
    text: str | Callable[[Clues], str | None]
    fix: str | Callable[[Clues], str]
    confidence: Confidence | Callable[[Clues], Confidence] = "high"
    applies: Callable[[Clues], bool] = _always
    explains_operations: bool = True

    def cause(self, clues: Clues) -> Cause | None:
        """Return the cause if the clues support it."""
        origin = clues.origin
        if origin.phase not in self.phases or (origin.op and not self.explains_operations) or not self.applies(clues):
            return None
        text = self.text if isinstance(self.text, str) else self.text(clues)
        if text is None:
            return None
        fix = self.fix if isinstance(self.fix, str) else self.fix(clues)
        return Cause(
            self.id, text, fix, self.confidence if isinstance(self.confidence, str) else self.confidence(clues)
        )


def likely_causes(clues: Clues) -> tuple[Cause, ...]:
    """Return the causes that the clues support, the most useful first."""
    first = clues.first
    of_operations = causes_of_chain(first.chains[0], is_first_step=first.is_first_step) if first.chains else ()
    causes = (rule.cause(clues) for rule in RULES)
    return (*of_operations, *(cause for cause in causes if cause is not None))


_ENTRY_TEXTS: Final[dict[EntryWay, str]] = {
    "argument": "The step was given the value: no operation of the step made it.",
    "captured": "The tensor held the value before the step ran, and it is no argument of the step.",
    "constant": "The program's data held the value, and the step made a constant of it: it is no argument of the step.",
}
_ENTRY_FIXES: Final[dict[EntryWay, str]] = {
    "argument": "Check the data where it is made (missing values, a division by a zero deviation, a broken file), and "
    "leave such samples out.",
    "captured": "Check what computed it before training, such as the mean and the deviation that a preprocessing layer "
    "adapted to data with missing values.",
    "constant": "Check the array or number where it is made (missing values, a division by a count of 0), and put a "
    "finite number in its place; for a mask a large finite one that fits the dtype.",
}


def _entry_way(clues: Clues) -> EntryWay:
    entry = clues.origin.entry
    return "argument" if entry is None else entry.way


def _is_recorded_scalar(clues: Clues) -> bool:
    recorded = clues.first.recorded
    return recorded.phase == "update" and recorded.tensor is not None


def _explosion_text(clues: Clues) -> str | None:
    explosion = clues.signs.explosion
    if explosion is None:
        return None
    return (
        f"The gradients exploded first: their global norm, {explosion.before:.3g} in the median until "
        f"step {explosion.first_step:,}, rose to {explosion.peak:.3g} by step {explosion.last_step:,}."
    )


def _explosion_confidence(clues: Clues) -> Confidence:
    explosion = clues.signs.explosion
    return "high" if explosion is not None and explosion.spans > 1 else "medium"


def _sum_text(clues: Clues) -> str | None:
    total = clues.signs.total
    if total is None or not (total.may_grow or clues.signs.explosion):
        return None
    return (
        f"The gradients that were applied are the sum of {total.microbatches:,} micro-batches, {total.ratio:.3g} "
        "times as large as those of one in the median, and not their mean."
    )


def _sum_confidence(clues: Clues) -> Confidence:
    total = clues.signs.total
    if total is not None and total.grows:
        return "high"
    return "medium" if clues.signs.explosion else "low"


def _has_no_explosion(clues: Clues) -> bool:
    return clues.signs.explosion is None


def _has_finite_loss(clues: Clues) -> bool:
    return _has_no_explosion(clues) and not math.isnan(clues.first.at_bad_step("loss"))


def _do_squares_overflow(clues: Clues) -> bool:
    return clues.first.at_bad_step("global_norm") >= min(map(norm_limit, clues.variables), default=math.inf)


def _squares_text(clues: Clues) -> str | None:
    if not _do_squares_overflow(clues):
        return None
    norm = clues.first.at_bad_step("global_norm")
    return (
        "The gradients were finite, clipping was not: their squares overflow in the norm (their global norm is "
        f"{norm:.3g})."
    )


def _is_variable(clues: Clues) -> bool:
    return clues.origin.tensor is None


def _update_confidence(clues: Clues) -> Confidence:
    return "medium" if _has_no_explosion(clues) else "low"


def _state_text(clues: Clues) -> str | None:
    origin = clues.origin
    # Records report the state after the step wrote it. A replay reports the state before.
    if origin.variable is None or origin.evidence == "records":
        return None
    return f"{shorten(origin.variable)} was not finite as the step began: no operation of this step made it so."


_COMPUTED: Final = frozenset(PHASES) - {"input", "weights"}

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "bad-input",
        frozenset({"input"}),
        lambda clues: _ENTRY_TEXTS[_entry_way(clues)],
        lambda clues: _ENTRY_FIXES[_entry_way(clues)],
    ),
    Rule(
        "bad-start",
        frozenset({"weights"}),
        "The variable was not finite when the first watched step began: no watched step made it so.",
        "Check the initializer and the checkpoint it was restored from; go back to an older checkpoint.",
    ),
    Rule(
        "bad-scalar",
        frozenset({"update"}),
        "The gradients were finite, a number that the update multiplies them by was not: the learning rate, a "
        "momentum or a weight decay.",
        "Look at what the learning-rate schedule returns at that step: one that divides by the step is Inf at step "
        "0, and a power or a root of the remaining steps is NaN after the last step.",
        applies=_is_recorded_scalar,
    ),
    Rule(
        "exploding-gradients",
        _COMPUTED,
        _explosion_text,
        "Lower the learning rate, clip the gradients by their global norm, or warm the learning rate up.",
        _explosion_confidence,
    ),
    Rule(
        "accumulated-sum",
        _COMPUTED,
        _sum_text,
        "Divide the total by the number of micro-batches, or each loss, unless the learning rate was chosen for "
        "the sum.",
        _sum_confidence,
    ),
    Rule(
        "forward-range",
        frozenset({"forward", "loss"}),
        "The watched variables were finite as the step began: something between them and there left the range, "
        "such as log(0), 0/0, the root of a negative number, an exp or a square that overflows. Or it came with a "
        "variable that is not watched, or with a batch that is no argument of the watched step: nothing looked at "
        "those.",
        "Watch what goes into such operations with watch.tensor, and keep them in range: an epsilon, a clip, or "
        "TensorFlow's own cross-entropy from logits.",
        "low",
        applies=_has_no_explosion,
        explains_operations=False,
    ),
    Rule(
        "backward-only",
        frozenset({"backward"}),
        "The loss was finite, its derivative was not: a root, norm or logarithm has no finite slope "
        "at 0, and tf.where multiplies the slope of the branch it does not take by 0, which makes NaN of "
        "Inf. Or a NaN, of a bad sample too, was swallowed by a relu or max pooling on its way to the loss.",
        "Add an epsilon inside the root, norm or logarithm; with tf.where, make the input of the other "
        "branch safe as well. Make the batch an argument of the watched step, so that it is looked at.",
        "low",
        applies=_has_finite_loss,
        explains_operations=False,
    ),
    Rule("clip-overflow", frozenset({"clip"}), _squares_text, overflow.CLIP_FIX, "high", explains_operations=False),
    Rule(
        "clip-overflow",
        frozenset({"clip"}),
        "The gradients were finite, clipping was not: a division by a norm of 0, or a product that overflows.",
        domains.CLIP_FIX,
        "low",
        applies=lambda clues: not _do_squares_overflow(clues),
        explains_operations=False,
    ),
    Rule(
        "bad-update",
        frozenset({"update"}),
        "The gradients were finite, the variable after the update was not: an epsilon that is 0 in the "
        "variable's dtype, a learning rate that is far too large or not finite, a slot of the optimizer that is "
        "not, or something that set the variable between two steps.",
        "Raise the optimizer's epsilon (1e-3 in half precision), look at what the learning-rate "
        "schedule returns at that step, and keep variables and slots in float32.",
        _update_confidence,
        applies=_is_variable,
        explains_operations=False,
    ),
    Rule(
        "bad-state",
        frozenset({"state"}),
        _state_text,
        "Check what sets it: its initializer, a checkpoint, a learning-rate schedule, or the moving statistics of "
        "an earlier batch.",
        explains_operations=False,
    ),
)
