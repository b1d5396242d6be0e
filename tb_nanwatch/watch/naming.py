"""Names of variables: those the user sees in Keras and TensorFlow, made unique."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from tb_nanwatch.schema.records import Variable


def describe(variables: Sequence[Any], orders: Sequence[int | None]) -> tuple[Variable, ...]:
    """Return the header's entry for each variable; two of one name become ``name`` and ``name#2``, or the next free.

    Args:
        variables: TensorFlow or Keras variables.
        orders: the place of each in the backward pass.
    """
    bases = [_name(variable) for variable in variables]
    return tuple(
        Variable(name, _layer(base), _shape(variable), _dtype(variable), order)
        for name, base, variable, order in zip(_unique(bases), bases, variables, orders, strict=True)
    )


def _unique(bases: Sequence[str]) -> Iterator[str]:
    taken = set(bases)
    met: set[str] = set()
    for base in bases:
        numbered = (f"{base}#{number}" for number in itertools.count(2))
        name = base if base not in met else next(name for name in numbered if name not in taken)
        met.add(base)
        taken.add(name)
        yield name


def _name(variable: Any) -> str:
    path = getattr(variable, "path", None)
    if path:
        return str(path)
    return str(variable.name).removesuffix(":0")


def _layer(name: str) -> str | None:
    owner, slash, _ = name.rpartition("/")
    return owner if slash else None


def _shape(variable: Any) -> tuple[int, ...]:
    if getattr(variable.shape, "rank", 0) is None:
        return (-1,)
    return tuple(-1 if size is None else int(size) for size in variable.shape)


def _dtype(variable: Any) -> str:
    return str(getattr(variable.dtype, "name", variable.dtype)).removesuffix("_ref")
