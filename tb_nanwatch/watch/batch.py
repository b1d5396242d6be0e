"""The batch: which of a step's arguments hold NaN or Inf."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import bad_samples, count_nonfinite
from tb_nanwatch.schema.records import Finding


class Call(NamedTuple):
    """The arguments of one call of a training step.

    Attributes:
        function: the user's Python function.
        args: positional arguments.
        kwargs: keyword arguments.
        is_converted: whether AutoGraph converts the function's control flow.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_converted: bool = True

    def findings(self) -> tuple[Finding, ...]:
        """Return each array or tensor argument that holds anything non-finite, in the order of the signature."""
        found = ((name, value, count_nonfinite(value)) for name, value in self._arrays())
        return tuple(
            Finding("input", name, counts, bad_samples(value)) for name, value, counts in found if counts.nonfinite
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the call; a sentence each."""
        return ()

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield every argument that is no container, however deep, with its name, in the order of the signature."""
        for name, argument in self._named().items():
            yield from _leaves(name, argument)

    def _arrays(self) -> Iterator[tuple[str, Any]]:
        for path, leaf in self.leaves():
            if isinstance(leaf, tf.Tensor):
                if leaf.dtype.is_floating:
                    yield path, leaf.numpy()
            elif isinstance(leaf, np.ndarray | np.generic | float) and np.asarray(leaf).dtype.kind != "c":
                yield path, np.asarray(leaf)

    def _named(self) -> dict[str, Any]:
        try:
            bound = inspect.signature(self.function).bind(*self.args, **self.kwargs).arguments
        except (TypeError, ValueError):
            return {f"argument {place}": value for place, value in enumerate(self.args)} | dict(self.kwargs)
        return dict(bound)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{name}[{key!r}]", item)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _leaves(f"{name}[{place}]", item)
    else:
        yield name, value
