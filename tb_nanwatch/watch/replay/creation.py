"""Who created an operation: read off the Python frames that are on the stack while it is being created.

Two facts are there and nowhere else: which forward operation a gradient is being taken of, and which Keras object is
being called.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Literal

from tb_nanwatch.watch.replay.expressions import Call
from tb_nanwatch.watch.replay.lines import is_generated

Owner = Literal["layer", "loss", "optimizer", "metric"]
_CALLS: Final = frozenset({"__call__", "call", "apply", "apply_gradients", "update_state", "symbolic_call"})
_KERAS_CLASSES: Final[dict[str, Owner]] = {
    "Layer": "layer",
    "Loss": "loss",
    "Optimizer": "optimizer",
    "BaseOptimizer": "optimizer",
    "Metric": "metric",
}


@dataclass(frozen=True)
class Forward:
    """What is told of a forward operation while its gradient is taken.

    Attributes:
        output: one of its outputs; ``None`` where the gradient does not need them.
        type: of the operation.
        inputs: by place; ``None`` those that the gradient does not need.
        scope: the name scope that it was created in.
    """

    output: Any
    type: str
    inputs: tuple[Any, ...] = ()
    scope: str = ""


@dataclass(frozen=True)
class Creation:
    """Who created an operation.

    Attributes:
        of: the forward operation whose gradient it belongs to, as far as it is told.
        in_gradient: whether it was created while a gradient was being taken.
        owner: the innermost Keras object whose call was being traced.
        is_draft: whether it is not to be run as it is: ``tf.vectorized_map`` makes another of it.
        path: of that object, if it is a layer; its name where it has no path.
        layer: that object, if it is a layer.
        calls: those of the stack that stand in code that AutoGraph generated, outermost first.
    """

    of: Forward | None = None
    in_gradient: bool = False
    owner: Owner | None = None
    path: str | None = None
    layer: Any = None
    is_draft: bool = False
    calls: tuple[Call, ...] = ()


def creation_now() -> Creation:
    """Return who creates what is being created now: the innermost frames that tell.

    Sources:
        ``_gradient_function`` of TensorFlow's ``eager/backprop.py`` holds the forward operation's outputs, and
        ``_GradientsHelper`` of ``ops/gradients_util.py`` the forward operation. ``_pfor_impl`` of
        ``ops/parallel_for/control_flow_ops.py`` traces a function, and ``_convert_helper`` makes vectorized operations
        of what it traced.
    """
    of = owner = None
    in_gradient = is_draft = is_conversion = False
    path = layer = None
    calls: list[Call] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_name
        if is_generated(frame.f_code.co_filename):
            calls.append(Call.of(frame))
        if name in ("_gradient_function", "_GradientsHelper"):
            of = _forward_of(frame, name) if of is None else of
            in_gradient = True
        elif name == "imperative_grad":
            in_gradient = True
        elif name == "_convert_helper":
            is_conversion = True
        elif name == "_pfor_impl":
            is_draft, is_conversion = is_draft or not is_conversion, False
        elif owner is None and name in _CALLS:
            candidate = frame.f_locals.get("self")
            owner, path = keras_object(candidate)
            layer = candidate if owner == "layer" else None
        frame = frame.f_back
    return Creation(of, in_gradient, owner, path, layer, is_draft, tuple(reversed(calls)))


def _forward_of(frame: FrameType, name: str) -> Forward | None:
    seen = frame.f_locals
    if name == "_GradientsHelper":
        op = seen.get("op")
        return Forward(op.outputs[0], op.type) if op is not None and op.outputs else None
    outputs = [tensor for tensor in seen.get("outputs") or () if tensor is not None]
    return Forward(
        output=outputs[0] if outputs else None,
        type=_text(seen.get("op_name")),
        inputs=tuple(seen.get("inputs") or ()),
        scope=_text(seen.get("forward_pass_name_scope")),
    )


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name or "")


def keras_object(candidate: Any) -> tuple[Owner | None, str | None]:
    """Return what kind of Keras object something is, and the path of a layer; ``None`` for each that is not known."""
    for base in type(candidate).__mro__:
        if base.__name__ in _KERAS_CLASSES and "keras" in base.__module__:
            owner = _KERAS_CLASSES[base.__name__]
            name = getattr(candidate, "path", None) or getattr(candidate, "name", None)
            return owner, str(name) if name and owner == "layer" else None
    return None, None
