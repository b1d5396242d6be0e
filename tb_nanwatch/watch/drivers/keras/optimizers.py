"""The optimizers that a model holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Optimizers:
    """What a model and its layers hold of optimizers.

    Attributes:
        watched: of Keras, each once; not those inside another one.
        foreign: names of the types of those that only look like one.
        microbatches: how many steps in a row Keras adds up for one update.
    """

    watched: Sequence[Any]
    foreign: Sequence[str]
    microbatches: int

    @classmethod
    def of(cls, model: Any) -> Optimizers:
        """Find them among the attributes of a model and of its layers, and in lists and dictionaries there."""
        holders = [model, *model._flatten_layers(include_self=False)]
        held = [value for holder in holders for attribute in vars(holder).values() for value in _parts(attribute)]
        found = {id(value): value for value in held if isinstance(value, keras.optimizers.Optimizer)}
        inside = {id(value.inner_optimizer) for value in found.values() if hasattr(value, "inner_optimizer")}
        alike = {type(value).__name__ for value in held if id(value) not in found and _is_like_one(value)}
        watched = [value for value in found.values() if id(value) not in inside]
        return cls(watched, sorted(alike), _microbatches(model.optimizer))


def _parts(attribute: Any) -> Iterator[Any]:
    if isinstance(attribute, Mapping):
        yield from attribute.values()
    elif isinstance(attribute, list | tuple):
        yield from attribute
    else:
        yield attribute


def _is_like_one(value: Any) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "apply_gradients", None))


def _microbatches(optimizer: Any) -> int:
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_accumulation_steps", None) or 1
