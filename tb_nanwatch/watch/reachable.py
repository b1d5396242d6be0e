"""The models, layers, modules and variables that the user's code reaches by name where it calls the watch.

A variable does not know its layer, and a layer does not know its model. The functions on the stack know the models that
they train.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

import tensorflow as tf

from tb_nanwatch.watch.installed import is_program

_GENERATED: Final = "__autograph_generated_file"
_MOST_ITEMS: Final = 1000
_DEEPEST: Final = 4
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Reached(NamedTuple):
    """An object, and the name by which the user's code reaches it."""

    name: str
    value: Any


def _class_of(value: Any) -> Any:
    return type(value)


# A search checks every attribute of every layer, and there are few classes.
@lru_cache(maxsize=4096)
def _is_of_keras(kind: type, name: str) -> bool:
    return any(base.__name__ == name and "keras" in base.__module__ for base in kind.__mro__)


def is_keras_layer(value: Any) -> bool:
    """Return whether an object is a layer or a model of Keras, of any version."""
    return _is_of_keras(_class_of(value), "Layer")


def is_variable(value: Any) -> bool:
    """Return whether an object is a variable of TensorFlow or Keras."""
    return isinstance(value, tf.Variable) or _is_of_keras(_class_of(value), "Variable")


def is_model_part(value: Any) -> bool:
    """Return whether an object is a layer or a module, which hold variables by design."""
    return isinstance(value, tf.Module) or is_keras_layer(value)


def snake_case(name: str) -> str:
    """Return the name of a class as the name of an object.

    Example:
        >>> snake_case("TinyNet")
        'tiny_net'
    """
    return _WORD.sub("_", name).lower()


def attributes_of(value: Any, *, excluded: Collection[str] = ()) -> Iterator[Reached]:
    """Yield the attributes of an object, public ones first, and the items of lists and dicts in them by their path.

    Args:
        value: the object.
        excluded: names of attributes to leave out.
    """
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict):
        return
    for name in sorted(map(str, held), key=lambda name: name.startswith("_")):
        if name not in excluded:
            yield from items_of(Reached(name.lstrip("_"), held.get(name)))


def items_of(named: Reached, depth: int = 0) -> Iterator[Reached]:
    """Yield an object or, if it is a list or dict, its items: ``blocks/0``, ``heads/left``."""
    name, value = named
    # Any other mapping may read a file to give its items.
    if not isinstance(value, list | tuple | dict):
        yield named
        return
    if len(value) > _MOST_ITEMS or depth > _DEEPEST:
        return
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, item in pairs:
        if isinstance(key, str | int):
            yield from items_of(Reached(f"{name}/{key}", item), depth + 1)


def is_users_object(value: Any) -> bool:
    """Return whether an object is of a class that the user's program defines, such as a trainer."""
    if isinstance(value, type) or is_model_part(value) or is_variable(value):
        return False
    module = sys.modules.get(type(value).__module__)
    filename = getattr(module, "__file__", None)
    return bool(filename and is_program(filename)) or type(value).__module__ == "__main__"


def holds_variables(value: Any) -> bool:
    """Return whether a user's object itself has variables among its attributes."""
    return any(is_variable(attribute) for _, attribute in attributes_of(value))


def reachable_roots() -> Iterator[Reached]:
    """Yield the layers, modules, variables and objects with variables that the functions on the stack can name.

    A variable in a function's own locals is left out: the name may be left over from a loop.
    """
    frame: FrameType | None = sys._getframe(1)
    search = _Search()
    while frame is not None:
        code = frame.f_code
        if is_program(code.co_filename) or _GENERATED in code.co_filename:
            yield from search.in_frame(frame)
        frame = frame.f_back


class _Search:
    """A search through names that visits each object once."""

    def __init__(self) -> None:
        self._met: set[int] = set()

    def in_frame(self, frame: FrameType) -> Iterator[Reached]:
        code, seen = frame.f_code, dict(frame.f_locals)
        is_module = frame.f_locals is frame.f_globals
        outer = set(code.co_names) if is_module else {*code.co_freevars, *code.co_cellvars}
        for name in [*(name for name in seen if name in outer), *(name for name in seen if name not in outer)]:
            # A module may have thousands of names that none of its functions uses.
            if name in outer or not is_module:
                yield from self._below(Reached(name, seen[name]), has_variables=name in outer)
        yield from self._globals(code, frame.f_globals, depth=0)

    def _globals(self, code: CodeType, names: Mapping[str, Any], *, depth: int) -> Iterator[Reached]:
        for name in code.co_names:
            if name in names:
                yield from self._below(Reached(name, names[name]), depth=depth)

    def _below(self, named: Reached, *, depth: int = 0, has_variables: bool = True) -> Iterator[Reached]:
        for name, value in items_of(named):
            if depth > _DEEPEST or id(value) in self._met:
                continue
            if is_variable(value) and not has_variables:
                continue
            yield from self._found(Reached(name, value), depth=depth)

    def _found(self, named: Reached, *, depth: int) -> Iterator[Reached]:
        value = named.value
        if is_variable(value) or is_model_part(value):
            self._met.add(id(value))
            yield named
        elif isinstance(value, MethodType):
            yield from self._below(Reached("self", value.__self__), depth=depth + 1)
            yield from self._found(Reached(named.name, value.__func__), depth=depth)
        elif (function := _function_of(value)) is not None:
            self._met.add(id(value))
            yield from self._in_function(function, depth=depth + 1)
        elif isinstance(value, ModuleType):
            self._met.add(id(value))
            if (path := getattr(value, "__file__", None)) and is_program(path):
                yield from (named for named in attributes_of(value) if is_model_part(named.value))
        elif is_users_object(value):
            self._met.add(id(value))
            if holds_variables(value):
                yield named
            else:
                for attribute in attributes_of(value):
                    yield from self._below(attribute, depth=depth + 1)

    def _in_function(self, function: FunctionType, *, depth: int) -> Iterator[Reached]:
        if not is_program(function.__code__.co_filename):
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            yield from self._below(Reached(name, value), depth=depth)
        yield from self._globals(function.__code__, function.__globals__, depth=depth)


def _function_of(value: Any) -> FunctionType | None:
    """Return the Python function of a function, a ``tf.function`` or a watched step."""
    if isinstance(value, FunctionType):
        return value
    if type(value).__module__.partition(".")[0] not in {"tensorflow", "tb_nanwatch"}:
        return None
    wrapped = (vars(value).get(name) for name in ("_python_function", "__wrapped__") if hasattr(value, "__dict__"))
    return next((function for function in wrapped if isinstance(function, FunctionType)), None)
