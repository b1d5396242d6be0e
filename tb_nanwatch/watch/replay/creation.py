"""What the Python frames on the stack say while an operation is created: who creates it, and from which named values.

Some facts exist only at that moment:

- the forward operation whose gradient is taken;
- which Keras object is being called;
- what the program calls the values that its line uses. A captured tensor or a constant has no name in the graph, but
  the program has one: a variable, an attribute or an item of an array.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tb_nanwatch.watch.installed import is_program
from tb_nanwatch.watch.replay.source_lines import CallSite, expressions_at, is_generated
from tb_nanwatch.watch.tf_internals import EagerTensor

Owner = Literal["layer", "loss", "optimizer", "metric"]
_CALLS: Final = frozenset({"__call__", "call", "apply", "apply_gradients", "update_state", "symbolic_call"})
_KERAS_CLASSES: Final[dict[str, Owner]] = {
    "Layer": "layer",
    "Loss": "loss",
    "Optimizer": "optimizer",
    "BaseOptimizer": "optimizer",
    "Metric": "metric",
}
_LONGEST_NAME: Final = 60
_UNKNOWN: Final = object()
_INDICES: Final = (int, str, np.integer, slice)


@dataclass(frozen=True)
class Forward:
    """What TensorFlow's frames say of a forward operation while they take its gradient.

    Attributes:
        output: one of its outputs; ``None`` where the gradient does not need them.
        type: the type of the operation.
        inputs: its inputs by place; ``None`` for each that the gradient does not need.
        scope: the name scope in which it was created.
    """

    output: Any
    type: str
    inputs: tuple[Any, ...] = ()
    scope: str = ""


@dataclass(frozen=True)
class Creation:
    """Who created an operation.

    Attributes:
        forward: the forward operation whose gradient it belongs to, as far as the frames say.
        in_gradient: whether it was created while a gradient was being taken.
        owner: the kind of the innermost Keras object whose call was being traced.
        is_draft: whether ``tf.vectorized_map`` replaces it by an operation for all rows, so that it does not run.
        path: the path of that Keras object if it is a layer; the layer's name if it has no path.
        layer: that object if it is a layer.
        calls: the calls on the stack that stand in code that AutoGraph generated, outermost first.
    """

    forward: Forward | None = None
    in_gradient: bool = False
    owner: Owner | None = None
    path: str | None = None
    layer: Any = None
    is_draft: bool = False
    calls: tuple[CallSite, ...] = ()


class Use(NamedTuple):
    """An expression of the program's current line, and its value."""

    text: str
    value: Any


def creation_now() -> Creation:
    """Return who creates an operation right now, from the innermost frames that say so.

    Sources:
        ``_gradient_function`` in TensorFlow's ``eager/backprop.py`` holds the forward operation's outputs, and
        ``_GradientsHelper`` in ``ops/gradients_util.py`` holds the forward operation. ``_pfor_impl`` in
        ``ops/parallel_for/control_flow_ops.py`` traces a function, and ``_convert_helper`` turns the traced operations
        into vectorized ones.
    """
    forward = owner = None
    in_gradient = is_draft = is_conversion = False
    path = layer = None
    calls: list[CallSite] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_name
        if is_generated(frame.f_code.co_filename):
            calls.append(CallSite.of(frame))
        if name in ("_gradient_function", "_GradientsHelper"):
            forward = _forward_in(frame, name) if forward is None else forward
            in_gradient = True
        elif name == "imperative_grad":
            in_gradient = True
        elif name == "_convert_helper":
            is_conversion = True
        elif name == "_pfor_impl":
            is_draft, is_conversion = is_draft or not is_conversion, False
        elif owner is None and name in _CALLS:
            candidate = frame.f_locals.get("self")
            owner, path = _keras_object(candidate)
            layer = candidate if owner == "layer" else None
        frame = frame.f_back
    return Creation(forward, in_gradient, owner, path, layer, is_draft, tuple(reversed(calls)))


def _forward_in(frame: FrameType, name: str) -> Forward | None:
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


def _keras_object(candidate: Any) -> tuple[Owner | None, str | None]:
    """Return the kind of a Keras object and, for a layer, its path; ``None`` for each that is not known."""
    for base in type(candidate).__mro__:
        if base.__name__ in _KERAS_CLASSES and "keras" in base.__module__:
            owner = _KERAS_CLASSES[base.__name__]
            name = getattr(candidate, "path", None) or getattr(candidate, "name", None)
            return owner, str(name) if name and owner == "layer" else None
    return None, None


def uses_now() -> tuple[Use, ...]:
    """Return the names, attributes and items that the user's line uses, then the arrays of the layers that it calls.

    This function runs no code of the user: it reads attributes from the object's own dictionary, and items only from
    NumPy arrays and Python's own containers.
    """
    of_layers: list[Use] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_program(_written_in(frame)):
            return (*_uses_in(frame), *of_layers)
        layer = frame.f_locals.get("self")
        owner, path = _keras_object(layer)
        if owner == "layer":
            of_layers += [Use(f"{path}/{name}", held) for name, held in vars(layer).items() if _is_array(held)]
        frame = frame.f_back
    return tuple(of_layers)


def name_of_captured(uses: Iterable[Use], value: Any) -> str | None:
    """Return the program's name for a tensor, from the values that its lines use; ``None`` if no line names it."""
    return next((use.text for use in uses if use.value is value), None)


def name_of_constant(uses: Iterable[Use], array: npt.NDArray[Any]) -> str | None:
    """Return the program's name for the data of a constant, from the values that its line uses.

    Args:
        uses: the values that the line uses.
        array: the value of the constant.

    Returns:
        ``None`` if the line names no equal value, or several equal numbers: every NaN is like any other.
    """
    alike = [use.text for use in uses if _is_array(use.value) and _equals(use.value, array)]
    return alike[0] if alike and (array.ndim or len(alike) == 1) else None


def _written_in(frame: FrameType) -> str:
    """Return the file of a frame's code; code that AutoGraph generated has the globals of the original."""
    filename = frame.f_code.co_filename
    return str(frame.f_globals.get("__file__", "")) if is_generated(filename) else filename


def _uses_in(frame: FrameType) -> Iterator[Use]:
    scope = {**frame.f_globals, **frame.f_locals}
    seen: set[str] = set()
    for expression in expressions_at(frame.f_code.co_filename, frame.f_lineno):
        if isinstance(expression, ast.Name | ast.Attribute | ast.Subscript):
            text = ast.unparse(expression)
            value = _value(expression, scope)
            if value is not _UNKNOWN and text not in seen and len(text) <= _LONGEST_NAME:
                seen.add(text)
                yield Use(text, value)


def _value(expression: ast.expr, scope: Mapping[str, Any]) -> Any:
    match expression:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return scope.get(name, _UNKNOWN)
        case ast.Attribute(value=owner, attr=name):
            return _attribute(_value(owner, scope), name)
        case ast.Subscript(value=owner, slice=index):
            return _item(_value(owner, scope), _value(index, scope))
        case _:
            return _index(expression, scope)


def _index(expression: ast.expr, scope: Mapping[str, Any]) -> Any:
    match expression:
        case ast.Slice(lower=lower, upper=upper, step=None):
            ends = [None if end is None else _value(end, scope) for end in (lower, upper)]
            return _UNKNOWN if any(end is _UNKNOWN for end in ends) else slice(*ends)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as operator, right=right):
            return _whole_number(operator, _value(left, scope), _value(right, scope))
    return _UNKNOWN


def _attribute(owner: Any, name: str) -> Any:
    # A computed attribute may run the user's code.
    held = vars(owner) if isinstance(owner, ModuleType) or hasattr(owner, "__dict__") else {}
    return held.get(name, _UNKNOWN)


def _item(owner: Any, index: Any) -> Any:
    if not isinstance(index, _INDICES) or type(owner) not in (np.ndarray, list, tuple, dict):
        return _UNKNOWN
    try:
        return owner[index]
    except (LookupError, TypeError, ValueError):
        return _UNKNOWN


def _whole_number(operator: ast.operator, left: Any, right: Any) -> Any:
    if type(left) is not int or type(right) is not int:
        return _UNKNOWN
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
    return left * right


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic | float | int | list | tuple | EagerTensor)


def _equals(candidate: Any, array: np.ndarray[Any, Any]) -> bool:
    try:
        held = np.asarray(candidate)
    except (TypeError, ValueError, RuntimeError):  # a list may hold symbolic tensors
        return False
    if held.shape != array.shape or held.dtype.kind not in "biufV":
        return False
    with np.errstate(all="ignore"):
        return bool(np.array_equal(held.astype(array.dtype), array, equal_nan=True))
