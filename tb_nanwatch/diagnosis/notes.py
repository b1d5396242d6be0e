"""Notes on a bad step, its replay and its batch; a sentence each."""

from __future__ import annotations

import math
from typing import Final

from tb_nanwatch.diagnosis.origin import First
from tb_nanwatch.diagnosis.sentences import entry_phrase
from tb_nanwatch.diagnosis.sightings import step_before
from tb_nanwatch.schema.records import PHASES, Alert, Phase

_FINITE: Final = "The replay of the step was finite, so only the records describe this step."
_FAILED: Final = "The step could not be replayed, so only the records describe it."
_UP_TO_THE_LOSS: Final = frozenset(PHASES[: PHASES.index("loss") + 1])
_PLACES: Final[dict[Phase, str]] = {"weights": "in a variable", "loss": "on the way to the loss"}
_HIDES_NAN: Final = "a relu or max pooling that swallows NaN, a tf.where, or operations that TensorFlow fused"
_HIDES_INF: Final = (
    "a division by Inf, which gives 0, the exponential of -Inf, a function that saturates, a minimum or a tf.where"
)


def notes_on(first: First) -> tuple[str, ...]:
    """Return the notes on the first bad step: lost weights, its replay, its batch."""
    if first.alert is None:
        return ()
    lost = lost_weights(first.alert)
    return (*(() if lost is None else (lost,)), *_on_replay(first), *first.alert.notes)


def lost_weights(alert: Alert) -> str | None:
    """Return a note that an update made weights non-finite and which checkpoint to restore; ``None`` if none did.

    A watch cannot prevent such an update: a variable that it makes non-finite shows only when the next step begins.
    """
    if alert.step == alert.first_step or not any(finding.role == "weight" for finding in alert.findings):
        return None
    step = step_before(alert)
    return (
        f"The update of step {step:,} had run before that could be seen, so the weights are lost since step {step:,}: "
        f"restore a checkpoint from before step {step:,}."
    )


def unfinished_sentence(alert: Alert) -> str:
    """Return the sentence about a step that an error ended."""
    return f"Step {alert.step:,} did not end: {str(alert.error).rstrip('.')}."


def _on_replay(first: First) -> tuple[str, ...]:
    replay = first.replay
    if replay is None:
        return ()
    match replay.outcome:
        case "found":
            return (*_hidden_from_the_loss(first), *replay.notes)
        case "finite":
            return (_FINITE, *replay.notes)
        case "failed":
            return replay.notes or (_FAILED,)


def _hidden_from_the_loss(first: First) -> tuple[str, ...]:
    """Return a note if the replay found a bad value before the loss although the step's own loss was finite."""
    link, loss_was_finite = first.chains[0][0], math.isfinite(first.at_bad_step("loss"))
    if link.phase not in _UP_TO_THE_LOSS or first.recorded.phase in _UP_TO_THE_LOSS or not loss_was_finite:
        return ()
    entry = f"in {entry_phrase(link.entry, link.tensor)}" if link.phase == "input" else "in the forward pass"
    place, reasons = _PLACES.get(link.phase, entry), _HIDES_NAN if link.kind == "nan" else _HIDES_INF
    note = (
        f"The replay saw it {place} already, while the step's own loss was finite: something on the way kept it from "
        f"the loss, such as {reasons}."
    )
    return (note,)
