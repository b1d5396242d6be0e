"""Names of variables: those the user sees in Keras and TensorFlow, made unique."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tb_nanwatch.schema.records import Variable
from tb_nanwatch.watch.owners import Owners, name_of_variable
from tb_nanwatch.watch.variables import handle_of


def describe(
    variables: Sequence[Any], orders: Sequence[int | None], owners: Owners | None = None
) -> tuple[Variable, ...]:
    """Return the header's entry for each variable; two of one name become ``name`` and ``name#2``, or the next free.

    Two layers of one name become ``layer`` and ``layer#2`` where nobody knows the model that they are in.

    Args:
        variables: TensorFlow or Keras variables.
        orders: the place of each in the backward pass.
        owners: where the layers of the models stand that the variables are known to be in.
    """
    owners = owners or Owners()
    bases = [
        *_apart([owners.variable(handle_of(one)) or name_of_variable(one) for one in variables], variables, owners)
    ]
    return tuple(
        Variable(name, _layer(base), _shape(variable), _dtype(variable), order)
        for name, base, variable, order in zip(_unique(bases), bases, variables, orders, strict=True)
    )


def _apart(names: Sequence[str], variables: Sequence[Any], owners: Owners) -> Iterator[str]:
    """Yield names in which layers of one name are told apart: where a name comes again, another layer begins."""
    layers: dict[str, int] = {}
    met: set[str] = set()
    for name, variable in zip(names, variables, strict=True):
        layer = _layer(name)
        if layer is None or owners.has(variable) or not getattr(variable, "path", None):
            yield name
            continue
        numbered = _numbered(name, layers.get(layer, 1))
        if numbered in met:
            layers[layer] = layers.get(layer, 1) + 1
            numbered = _numbered(name, layers[layer])
        met.add(numbered)
        yield numbered


def _numbered(name: str, number: int) -> str:
    layer, _, last = name.rpartition("/")
    return name if number == 1 else f"{layer}#{number}/{last}"


def _unique(bases: Sequence[str]) -> Iterator[str]:
    taken = set(bases)
    met: set[str] = set()
    for base in bases:
        numbered = (f"{base}#{number}" for number in itertools.count(2))
        name = base if base not in met else next(name for name in numbered if name not in taken)
        met.add(base)
        taken.add(name)
        yield name


def _layer(name: str) -> str | None:
    owner, slash, _ = name.rpartition("/")
    return owner if slash else None


def _shape(variable: Any) -> tuple[int, ...]:
    if getattr(variable.shape, "rank", 0) is None:
        return (-1,)
    return tuple(-1 if size is None else int(size) for size in variable.shape)


def _dtype(variable: Any) -> str:
    return str(getattr(variable.dtype, "name", variable.dtype)).removesuffix("_ref")
