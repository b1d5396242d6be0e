"""The places of layers and variables in the user's models, and unique names made from them.

Keras gives the layers of two models the same path if the models were built apart and nested later. TensorFlow names
every variable without a name ``Variable``. If two names are equal, the path to each through models, attributes, lists
and dicts is added: ``encoder/dense``, ``blocks/0/scale``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tb_nanwatch.watch.boundary import attempt
from tb_nanwatch.watch.reachable import (
    Reached,
    attributes_of,
    is_keras_layer,
    is_model_part,
    is_users_object,
    is_variable,
    reachable_roots,
    snake_case,
)
from tb_nanwatch.watch.tf_internals import layers_inside
from tb_nanwatch.watch.variables import handle_of

_UNNAMED: Final = re.compile(r"(?:.*/)?Variable(?:_\d+)?")
_KERAS_VARIABLES: Final = (
    "_trainable_variables",
    "_non_trainable_variables",
    "_trainable_weights",
    "_non_trainable_weights",
)
_KERAS_OWN: Final = frozenset(
    {
        *_KERAS_VARIABLES,
        "_layers",
        "_operations",
        "_tracked",
        "_functional",
        "_self_tracked_trackables",
        "_metrics",
        "_loss_tracker",
        "_compile_metrics",
    }
)
"""Attributes that Keras maintains. Their names say nothing about the user's model."""
_MOST_PARTS: Final = 20_000


@dataclass(frozen=True, eq=False)
class Place:
    """The place of a layer, a module or another object in a model.

    Attributes:
        part: the object.
        root: name of the model that contains it.
        path: names from the model to the object; empty for the model itself.
        variables: variables that the object itself owns, by attribute or Keras name.
        is_in_keras: whether the path has only layers and models of Keras, which give their variables a path.
    """

    part: Any
    root: str
    path: tuple[str, ...]
    variables: Sequence[Reached]
    is_in_keras: bool

    @cached_property
    def base(self) -> str | None:
        """The layer in the names of the variables; ``None`` if the names contain no layer."""
        named = [name for _, variable in self.variables if not is_unnamed(name := name_of_variable(variable))]
        if named:
            return named[0].rpartition("/")[0] or None
        path = getattr(self.part, "path", None) if is_keras_layer(self.part) else None
        return str(path) if path else None

    def full(self, *, with_root: bool) -> str:
        """Return the path to the object as the name of a layer."""
        starts_at_root = (self.base or "").split("/")[0] == self.root
        is_root_shown = with_root or not self.is_in_keras or not self.path or starts_at_root
        return "/".join([self.root, *self.path] if is_root_shown else self.path)


class Owners:
    """Names of layers and variables from their places; none for a layer or variable whose own name is unique."""

    def __init__(self, places: Iterable[Place] = (), loose: Iterable[Reached] = ()) -> None:
        """Make the names.

        Args:
            places: places of layers and other owners, each once.
            loose: variables that no object owns, by their names in the program.
        """
        self._places = list(places)
        owned = [variable for place in self._places for _, variable in place.variables]
        # The id of an object is valid only while the object lives.
        self._held = (self._places, loose := list(loose))
        self._owned = {_key(variable) for variable in owned}
        self._layers: dict[int, str] = {}
        self._variables: dict[int, str] = {}
        if self._is_ambiguous:
            self._layers = {id(place.part): self._layer(place) for place in self._places}
        for place in self._places:
            self._name_variables(place)
        for name, variable in loose:
            if is_unnamed(name_of_variable(variable)):
                self._variables.setdefault(_key(variable), name)

    def has(self, variable: Any) -> bool:
        """Return whether the owner of a variable is known."""
        return _key(variable) in self._owned

    def variable(self, handle: Any) -> str | None:
        """Return the name of the variable with a handle; ``None`` if its own name is unique."""
        return self._variables.get(id(handle))

    def layer(self, part: Any) -> str | None:
        """Return the name of a layer; ``None`` if its own path is unique."""
        return self._layers.get(id(part))

    @cached_property
    def _by_base(self) -> dict[str | None, list[Place]]:
        found: dict[str | None, list[Place]] = defaultdict(list)
        for place in self._places:
            if any(not is_unnamed(name_of_variable(variable)) for _, variable in place.variables):
                found[place.base].append(place)
        return found

    @cached_property
    def _is_ambiguous(self) -> bool:
        return any(len(places) > 1 for places in self._by_base.values())

    @cached_property
    def _has_roots(self) -> bool:
        return len({place.root for place in self._places}) > 1

    def _layer(self, place: Place) -> str:
        full = place.full(with_root=self._is_ambiguous and self._has_roots)
        if place.base is None:
            return full
        if not self._is_ambiguous:
            return place.base
        is_alone = len(self._by_base.get(place.base, ())) <= 1
        return place.base if is_alone and _is_within(full.split("/"), place.base.split("/")) else full

    def _name_variables(self, place: Place) -> None:
        layer = self._layer(place)
        for attribute, variable in place.variables:
            name = name_of_variable(variable)
            if is_unnamed(name):
                self._variables[_key(variable)] = f"{layer}/{attribute}"
            elif self._is_ambiguous:
                self._variables[_key(variable)] = f"{layer}/{name.rpartition('/')[2]}"


def find_owners(roots: Iterable[Reached], variables: Iterable[Any] | None = None) -> Owners:
    """Find the places of the layers and variables of some models.

    Args:
        roots: models, layers, modules, variables and other objects, by name.
        variables: watched variables; a model without any of them is left out. By default all models count.
    """
    watched = None if variables is None else {_key(variable) for variable in variables}
    named = list(roots)
    titles = Counter(_title(root) for root in named)
    trees = [
        list(_places(root.value, title if titles[title := _title(root)] == 1 else root.name))
        for root in named
        if not is_variable(root.value)
    ]
    trees = [tree for tree in trees if watched is None or any(map(watched.__contains__, _variables_in(tree)))]
    # A model inside another model is named from the outer model.
    inner = {id(place.part) for tree in trees for place in tree[1:]}
    outer = [tree for tree in trees if id(tree[0].part) not in inner] or trees
    places = {id(place.part): place for tree in reversed(outer) for place in reversed(tree)}
    loose = [root for root in named if is_variable(root.value) and (watched is None or _key(root.value) in watched)]
    return Owners([*reversed(places.values())], loose)


def owners_of(variables: Sequence[Any], model: Any = None) -> Owners:
    """Find the places of variables in a model; without a model, in those that the code on the stack can name."""

    def find() -> Owners:
        return find_owners(reachable_roots(), variables) if model is None else find_owners([Reached("", model)])

    # A failure to find names must not end training.
    return attempt(find, failed=lambda _: Owners())


def name_of_variable(variable: Any) -> str:
    """Return the own name of a variable: its Keras path or TensorFlow name."""
    path = getattr(variable, "path", None)
    return str(path) if path else str(variable.name).removesuffix(":0")


def is_unnamed(name: str) -> bool:
    """Return whether TensorFlow gave this name to a variable without a name."""
    return _UNNAMED.fullmatch(name) is not None


def _key(variable: Any) -> int:
    return id(handle_of(variable))


def _variables_in(tree: Iterable[Place]) -> Iterator[int]:
    return (_key(variable) for place in tree for _, variable in place.variables)


def _is_within(parts: Sequence[str], path: Sequence[str]) -> bool:
    """Return whether a path contains some names in their order."""
    left = iter(path)
    return all(part in left for part in parts)


def _places(root: Any, title: str) -> Iterator[Place]:
    """Yield the parts of a model, nearest first, each by the shortest path."""
    met = {id(root)}
    queue = [_Part(root, (), is_keras_layer(root))]
    for part in queue:
        for name, child in part.children:
            if id(child) not in met and len(met) < _MOST_PARTS:
                met.add(id(child))
                queue.append(_Part(child, (*part.path, name), part.is_in_keras and is_keras_layer(child)))
    owner = {key: part for part in reversed(queue) for key in part.own}
    # A layer may hold a variable of another layer. The variable's Keras path names its owner.
    owner |= {key: part for part in queue for key, (_, variable) in part.own.items() if part.is_maker_of(variable)}
    for part in queue:
        own = [named for key, named in part.own.items() if owner[key] is part]
        yield Place(part.value, title, part.path, own, part.is_in_keras)


@dataclass(frozen=True, eq=False)
class _Part:
    """An object that the search through a model visits."""

    value: Any
    path: tuple[str, ...]
    is_in_keras: bool

    @cached_property
    def attributes(self) -> list[Reached]:
        excluded = _KERAS_OWN if is_keras_layer(self.value) else ()
        return list(attributes_of(self.value, excluded=excluded))

    @cached_property
    def own(self) -> dict[int, Reached]:
        """The variables of the object, by the ids of their handles."""
        found = {_key(held.value): held for held in reversed(self.attributes) if is_variable(held.value)}
        if is_keras_layer(self.value):
            for name in _KERAS_VARIABLES:
                for variable in getattr(self.value, name, None) or ():
                    named = Reached(name_of_variable(variable).rpartition("/")[2], variable)
                    found.setdefault(_key(variable), named)
        return found

    @property
    def children(self) -> list[Reached]:
        """The layers, modules and other objects in the object."""
        parts = [held for held in self.attributes if is_model_part(held.value)]
        if is_keras_layer(self.value):
            return _children_in_keras(self.value, {id(part.value): part for part in reversed(parts)})
        # A layer may refer to its trainer. Inside a module, only modules and layers count as parts.
        others = [] if is_model_part(self.value) else [held for held in self.attributes if is_users_object(held.value)]
        return [Reached(_explicit_name(held.value) or held.name, held.value) for held in [*parts, *others]]

    def is_maker_of(self, variable: Any) -> bool:
        path = getattr(self.value, "path", None) if is_keras_layer(self.value) else None
        return bool(path) and name_of_variable(variable).rpartition("/")[0] == path


def _children_in_keras(layer: Any, by_attribute: Mapping[int, Reached]) -> list[Reached]:
    layers = layers_inside(layer, recursive=False)
    known = {id(child) for child in layers}
    children = layers + [child.value for key, child in by_attribute.items() if key not in known]
    names = [_name_in_keras(child, by_attribute.get(id(child))) for child in children]
    return [
        (by_attribute.get(id(child)) if names.count(name) > 1 else None) or Reached(name, child)
        for name, child in zip(names, children, strict=True)
    ]


def _name_in_keras(child: Any, by_attribute: Reached | None) -> str:
    if by_attribute is not None and (not is_keras_layer(child) or (_is_model(child) and _is_auto_named(child))):
        return by_attribute.name
    return str(child.name)


def _title(root: Reached) -> str:
    value = root.value
    if is_keras_layer(value):
        has_own_name = root.name in {"", "self"} or not _is_auto_named(value)
        return str(value.name) if has_own_name else root.name
    return snake_case(type(value).__name__) if root.name == "self" else root.name


def _explicit_name(part: Any) -> str | None:
    return str(part.name) if is_keras_layer(part) and not _is_auto_named(part) else None


def _is_model(layer: Any) -> bool:
    return any(base.__name__ == "Model" and "keras" in base.__module__ for base in type(layer).__mro__)


def _is_auto_named(layer: Any) -> bool:
    """Return whether Keras made the name of a layer from a general class or a counter, so that it says nothing."""
    own = re.escape(snake_case(type(layer).__name__))
    return re.fullmatch(rf"(?:model|functional|sequential)(?:_\d+)?|{own}_\d+", str(layer.name)) is not None
