"""Names of variables as the header lists them: the names in Keras and TensorFlow, made unique."""

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
    """Return the header's entry for each variable.

    Two variables with the same name become ``name`` and ``name#2``, or the next free number. Two layers with the same
    name become ``layer`` and ``layer#2`` if their model is not known.

    Args:
        variables: TensorFlow or Keras variables.
        orders: place of each variable in the backward pass.
        owners: places of the layers of known models.
    """
    owners = owners or Owners()
    bases = [
        *_with_unique_layers(
            [owners.variable(handle_of(variable)) or name_of_variable(variable) for variable in variables],
            variables,
            owners,
        )
    ]
    return tuple(
        Variable(name, _layer(base), _shape(variable), _dtype(variable), order)
        for name, base, variable, order in zip(_unique(bases), bases, variables, orders, strict=True)
    )


def _with_unique_layers(names: Sequence[str], variables: Sequence[Any], owners: Owners) -> Iterator[str]:
    """Yield names with unique layers: a name that comes again belongs to another layer of the same name."""
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
