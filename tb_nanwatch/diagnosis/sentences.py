"""The verdict in words: the step, the kind and the place, and whether the records leave one open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tb_nanwatch.diagnosis.origin import ABOUT_VARIABLES
from tb_nanwatch.schema.records import Kind, Origin, Phase

_KINDS: Final[dict[Kind | None, str]] = {
    "nan": "NaN",
    "pos_inf": "+Inf",
    "neg_inf": "-Inf",
    None: "NaN or Inf",
}
_LONGEST_NAME: Final = 120
_MOST_SAMPLES: Final = 8


def origin_sentence(origin: Origin) -> str:
    """Say where the first non-finite value stood.

    Args:
        origin: as :func:`tb_nanwatch.diagnosis.origin_of_alert` returns it.

    Returns:
        One sentence. A name stands in it as it was given: whoever shows the sentence must escape it.

    Example:
        >>> from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Series, Variable
        >>> from tb_nanwatch.diagnosis import origin_of_alert
        >>> import numpy as np
        >>> header = Header(0, (Variable("l3_1/V", "l3_1", (64,), "float32"),))
        >>> finding = Finding("gradient", "l3_1/V", Counts(size=64, nan=0, pos_inf=3, neg_inf=0))
        >>> steps = np.arange(410, 412)
        >>> alert = Alert(411, 0, 0, "raised", (finding,), Series(steps, steps, {}))
        >>> origin_sentence(origin_of_alert(header, alert))
        'Step 411: +Inf first appeared in the gradient of l3_1/V, in the backward pass (3 of 64 elements).'
    """
    return f"Step {origin.step:,}: {_KINDS[origin.kind]} {_PLACES[origin.phase](origin)}{_remarks(origin)}."


def shortened(name: str) -> str:
    """Return a name that fits a sentence: of a very long one the middle is left out."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2
    return f"{name[:half]}…{name[-half:]}"


def _input(origin: Origin) -> str:
    return f"was in the input {shortened(origin.tensor or '')}, before anything was computed"


def _weights(origin: Origin) -> str:
    return f"was in {_owner(origin, 'the variable', 'variables')} already when watching began"


def _forward(origin: Origin) -> str:
    return f"first appeared in the tensor {shortened(origin.tensor or '')}, in the forward pass"


def _loss(_: Origin) -> str:
    return "first appeared in the loss"


def _backward(origin: Origin) -> str:
    return f"first appeared in {_owner(origin, 'the gradient of', 'gradients')}, in the backward pass"


def _clip(origin: Origin) -> str:
    owner = _owner(origin, "the clipped gradient of", "clipped gradients")
    return f"first appeared in {owner}, finite before clipping"


def _update(origin: Origin) -> str:
    return f"first appeared in {_owner(origin, 'the variable', 'variables')}, after the update of that step"


def _state(_: Origin) -> str:
    return "first appeared in what is kept beside the variables (moving statistics, optimizer slots)"


_PLACES: Final[dict[Phase, Callable[[Origin], str]]] = {
    "input": _input,
    "weights": _weights,
    "forward": _forward,
    "loss": _loss,
    "backward": _backward,
    "clip": _clip,
    "update": _update,
    "state": _state,
}


def _owner(origin: Origin, one: str, several: str) -> str:
    if origin.variable is not None:
        return f"{one} {shortened(origin.variable)}"
    return f"several {several}" + (f" of the layer {shortened(origin.layer)}" if origin.layer is not None else "")


def _remarks(origin: Origin) -> str:
    remarks = "; ".join(remark for remark in (_extent(origin), _samples(origin), _open_question(origin)) if remark)
    return f" ({remarks})" if remarks else ""


def _extent(origin: Origin) -> str:
    counts = origin.counts
    return f"{counts.nonfinite:,} of {counts.size:,} elements" if counts and counts.size > 1 else ""


def _samples(origin: Origin) -> str:
    if not origin.samples:
        return ""
    shown = ", ".join(str(sample) for sample in origin.samples[:_MOST_SAMPLES])
    more = ", ..." if len(origin.samples) > _MOST_SAMPLES else ""
    return f"{'sample' if len(origin.samples) == 1 else 'samples'} {shown}{more}"


def _open_question(origin: Origin) -> str:
    several = origin.phase in ABOUT_VARIABLES and origin.variable is None
    return "which was first is not recorded" if several else ""
