"""What a program calls the values that its current line uses: read off the Python frames while it creates an operation.

A captured tensor and a constant have no name of their own. The program has one for them: a variable, an attribute, or
an item of an array.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType, ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tb_nanwatch.watch.installed import is_program
from tb_nanwatch.watch.replay.creation import keras_object
from tb_nanwatch.watch.replay.expressions import expressions_at
from tb_nanwatch.watch.replay.lines import is_generated
from tb_nanwatch.watch.tf_internals import EagerTensor

_LONGEST_NAME: Final = 60
_UNKNOWN: Final = object()
_INDICES: Final = (int, str, np.integer, slice)


class Use(NamedTuple):
    """An expression of the program's current line, and its value."""

    text: str
    value: Any


def uses_now() -> tuple[Use, ...]:
    """Return the names, attributes and items that the user's line uses, then what the layers hold that it calls.

    No code of the user's runs for it: an attribute is looked up in the object's own dictionary, an item only in NumPy's
    arrays and in Python's own containers.
    """
    of_layers: list[Use] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_program(_written_in(frame)):
            return (*_uses_in(frame), *of_layers)
        layer = frame.f_locals.get("self")
        owner, path = keras_object(layer)
        if owner == "layer":
            of_layers += [Use(f"{path}/{name}", held) for name, held in vars(layer).items() if _is_array(held)]
        frame = frame.f_back
    return tuple(of_layers)


def name_of_captured(uses: Iterable[Use], value: Any) -> str | None:
    """Return what the program calls a tensor, given what its lines use; ``None`` if none of them names it."""
    return next((use.text for use in uses if use.value is value), None)


def name_of_constant(uses: Iterable[Use], array: npt.NDArray[Any]) -> str | None:
    """Return what the program calls the data that it made a constant of, given what its line uses.

    Args:
        uses: of the line that made it.
        array: what the constant holds.

    Returns:
        ``None`` where the line names nothing that holds the same, or several such numbers: every NaN is like any other.
    """
    alike = [use.text for use in uses if _is_array(use.value) and _equals(use.value, array)]
    return alike[0] if alike and (array.ndim or len(alike) == 1) else None


def _written_in(frame: FrameType) -> str:
    """Return the file of the code of a frame; code that AutoGraph generated has the globals of what it is made from."""
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
    # An attribute that is computed may run the user's code.
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
