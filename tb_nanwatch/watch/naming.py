"""Names of variables: those the user sees in Keras and TensorFlow, made unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tb_nanwatch.schema.records import Variable


def describe(variables: Sequence[Any], orders: Sequence[int | None]) -> tuple[Variable, ...]:
    """Return the header's entry for each variable; two of one name become ``name`` and ``name#2``.

    Args:
        variables: TensorFlow or Keras variables.
        orders: the place of each in the backward pass.
    """
    seen: Counter[str] = Counter()
    described = []
    for variable, order in zip(variables, orders, strict=True):
        base = _name(variable)
        seen[base] += 1
        name = base if seen[base] == 1 else f"{base}#{seen[base]}"
        described.append(Variable(name, _layer(base), _shape(variable), _dtype(variable), order))
    return tuple(described)


def _name(variable: Any) -> str:
    path = getattr(variable, "path", None)
    if path:
        return str(path)
    return str(variable.name).removesuffix(":0")


def _layer(name: str) -> str | None:
    owner, slash, _ = name.rpartition("/")
    return owner if slash else None


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(-1 if size is None else int(size) for size in variable.shape)


def _dtype(variable: Any) -> str:
    return str(getattr(variable.dtype, "name", variable.dtype))
