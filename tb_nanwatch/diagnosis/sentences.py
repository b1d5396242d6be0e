"""Sentences about an origin: the step, the kind, the place, the operation if known, and open questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tb_nanwatch.diagnosis.sightings import ABOUT_VARIABLES
from tb_nanwatch.numerics.finiteness import MOST_SAMPLES
from tb_nanwatch.schema.records import Entry, Kind, Operation, Origin, Phase, Source

KINDS: Final[dict[Kind | None, str]] = {
    "nan": "NaN",
    "pos_inf": "+Inf",
    "neg_inf": "-Inf",
    None: "NaN or Inf",
}
_DURING: Final[dict[Phase, str]] = {
    "input": "in the input",
    "weights": "in reading the variables",
    "forward": "in the forward pass",
    "loss": "in the loss",
    "backward": "in the backward pass",
    "clip": "in clipping",
    "update": "in the update",
    "state": "in the state beside the variables",
}
_LONGEST_NAME: Final = 120
_MOST_SAMPLES: Final = 8
_MOST_ELEMENTS: Final = 3


def origin_sentence(origin: Origin) -> str:
    """Describe an origin in one sentence.

    Args:
        origin: an origin as :func:`tb_nanwatch.diagnosis.origin_of_alert` returns it.

    Returns:
        One sentence. It contains names without escaping; the caller must escape it before showing it.

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
    place = _operation(origin, origin.op) if origin.op else _PLACES[origin.phase](origin)
    return f"Step {origin.step:,}: {KINDS[origin.kind]} {place}{_remarks(origin)}."


def shorten(name: str) -> str:
    """Return a name that fits a sentence; the middle of a very long name is left out."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2
    return f"{name[:half]}…{name[-half:]}"


def format_source(source: Source) -> str:
    """Return the place of a source line for use in a sentence.

    Example:
        >>> format_source(Source("critic.py", 41, "train_step", "loss = tf.square(error)"))
        'critic.py:41, in train_step'
    """
    function = "" if source.function in {"", "<module>"} else f", in {shorten(source.function)}"
    return f"{shorten(source.file)}:{source.line}{function}"


def _operation(origin: Origin, op: Operation) -> str:
    source = f" ({format_source(origin.source)})" if origin.source else ""
    # In the other phases the layer is at most a name scope.
    is_in_layer = origin.layer is not None and origin.phase in {"forward", "backward"}
    layer = f" in the layer {shorten(origin.layer or '')}" if is_in_layer else ""
    return f"first appeared in the output of {shorten(op.type)}{source}{layer}, {_DURING[origin.phase]}"


def _input(origin: Origin) -> str:
    phrase = entry_phrase(origin.entry, origin.tensor)
    line = f" ({format_source(origin.source)})" if origin.source else ""
    layer = f" in the layer {shorten(origin.layer)}" if origin.layer is not None else ""
    return f"was in {phrase}{line}{layer}, before anything was computed"


def entry_phrase(entry: Entry | None, tensor: str | None) -> str:
    """Return a phrase for the entry of a value into a step, with the tensor's name if it has one.

    Example:
        >>> entry_phrase(Entry("captured", (2,), ((1,),)), "mean")
        'the tensor mean of shape [2], which the step captures'
    """
    name = f" {shorten(tensor)}" if tensor else ""
    match entry:
        case Entry(way="captured", shape=shape):
            return f"{'the' if name else 'a'} tensor{name}{_shape_phrase(shape)}, which the step captures"
        case Entry(way="constant", shape=shape):
            return f"{'the' if name else 'a'} constant{name}{_shape_phrase(shape)}, made of the program's data"
    return f"the input{name}" if name else "an input of the step"


def _shape_phrase(shape: tuple[int, ...]) -> str:
    return f" of shape {list(shape)}" if shape else ""


def _weights(origin: Origin) -> str:
    return f"was in {_owner(origin, 'the variable', 'variables')} already when watching began"


def _forward(origin: Origin) -> str:
    name = f"the tensor {shorten(origin.tensor)}, in " if origin.tensor else ""
    return f"first appeared in {name}the forward pass"


def _loss(_: Origin) -> str:
    return "first appeared in the loss"


def _backward(origin: Origin) -> str:
    return f"first appeared in {_owner(origin, 'the gradient of', 'gradients')}, in the backward pass"


def _clip(origin: Origin) -> str:
    owner = _owner(origin, "the clipped gradient of", "clipped gradients")
    return f"first appeared in {owner}, finite before clipping"


def _update(origin: Origin) -> str:
    if origin.tensor is not None:
        return "was in a number that the update multiplies by, such as the learning rate, before the update ran"
    return f"first appeared in {_owner(origin, 'the variable', 'variables')}, after the update of that step"


def _state(origin: Origin) -> str:
    if origin.variable is None:
        return "first appeared in several statistics that are kept beside the variables"
    if origin.evidence == "records":
        return f"was in what the step wrote to the statistic {shorten(origin.variable)}"
    return f"was in {shorten(origin.variable)}, kept beside the trained variables, as the step began"


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


def _owner(origin: Origin, singular: str, plural: str) -> str:
    if origin.variable is not None:
        return f"{singular} {shorten(origin.variable)}"
    return f"several {plural}" + (f" of the layer {shorten(origin.layer)}" if origin.layer is not None else "")


def _remarks(origin: Origin) -> str:
    remarks = "; ".join(
        remark for remark in (_whose(origin), _extent(origin), _samples(origin), _open_question(origin)) if remark
    )
    return f" ({remarks})" if remarks else ""


def _whose(origin: Origin) -> str:
    parts = (("worker", origin.worker), ("replica", origin.replica), ("micro-batch", origin.microbatch))
    return ", ".join(f"{name} {number}" for name, number in parts if number is not None)


def _extent(origin: Origin) -> str:
    counts = origin.counts
    if not counts or counts.size <= 1:
        return ""
    return f"{counts.nonfinite:,} of {counts.size:,} elements{_elements(origin)}"


def _elements(origin: Origin) -> str:
    """Return the indices of bad elements, unless samples give them or all elements are bad."""
    entry, counts = origin.entry, origin.counts
    if entry is None or counts is None or origin.samples or counts.nonfinite == counts.size:
        return ""
    shown = ", ".join(str(list(index)) for index in entry.elements[:_MOST_ELEMENTS])
    return f", at {shown}{', ...' if counts.nonfinite > _MOST_ELEMENTS else ''}" if shown else ""


def _samples(origin: Origin) -> str:
    samples, counts = origin.samples, origin.counts
    if not samples:
        return ""
    if counts and counts.nonfinite == counts.size > 1 and _is_every_sample(origin):
        return "every sample"
    if len(samples) > 2 and samples == tuple(range(samples[0], samples[0] + len(samples))):
        more = ", if not more" if len(samples) >= MOST_SAMPLES else ""
        return f"samples {samples[0]} to {samples[-1]}{more}"
    shown = ", ".join(str(sample) for sample in samples[:_MOST_SAMPLES])
    more = ", ..." if len(samples) > _MOST_SAMPLES else ""
    return f"{'sample' if len(samples) == 1 else 'samples'} {shown}{more}"


def _is_every_sample(origin: Origin) -> bool:
    """Return whether the samples are the whole batch, given that all elements are bad.

    A replay may list fewer: the samples that a branch let through.
    """
    if origin.evidence == "records":
        return True
    return origin.entry is not None and origin.entry.shape[:1] == (len(origin.samples),)


def _open_question(origin: Origin) -> str:
    is_named = origin.variable is not None or origin.tensor is not None
    several = origin.phase in ABOUT_VARIABLES and not is_named and origin.evidence == "records"
    return "which was first is not recorded" if several else ""
