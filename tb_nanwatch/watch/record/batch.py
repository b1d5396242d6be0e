"""The batch: which of a step's arguments hold NaN or Inf."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import MOST_SAMPLES, bad_samples, count_nonfinite
from tb_nanwatch.schema.records import Finding


class Part(NamedTuple):
    """The numbers of an argument, or of one of the tensors that it consists of.

    Attributes:
        values: any shape.
        rows: of each in the leading dimension, the sample that it belongs to, int ``[N]``; ``None`` where that is its
            own place.
    """

    values: npt.NDArray[Any]
    rows: npt.NDArray[Any] | None = None

    def samples(self) -> tuple[int, ...]:
        """Return the samples that hold anything non-finite, in order, the first of them."""
        if self.rows is None:
            return bad_samples(self.values)
        at = bad_samples(self.values, limit=len(self.rows))
        return tuple(int(row) for row in np.unique(self.rows[list(at)])[:MOST_SAMPLES])


def parts_of(leaf: Any) -> Iterator[tuple[Any, Part]]:
    """Yield each floating tensor that an argument is, or consists of, with its numbers.

    Args:
        leaf: an eager tensor, or a composite one. The rows of a sparse tensor are those of the dense one, those of a
            ragged tensor are the outermost.
    """
    rows: npt.NDArray[Any] | None = None
    if isinstance(leaf, tf.SparseTensor):
        rows = leaf.indices.numpy()[:, 0]
    elif isinstance(leaf, tf.RaggedTensor):
        rows = _outermost_rows(leaf)
    for part in tf.nest.flatten(leaf, expand_composites=True):
        if isinstance(part, tf.Tensor) and part.dtype.is_floating:
            yield part, Part(part.numpy(), rows)


def _outermost_rows(ragged: tf.RaggedTensor) -> npt.NDArray[Any]:
    first, *inner = ragged.nested_value_rowids()
    rows = first.numpy()
    for rowids in inner:
        rows = rows[rowids.numpy()]
    return np.asarray(rows)


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
        found = ((name, part, count_nonfinite(part.values)) for name, part in self._arrays())
        return tuple(Finding("input", name, counts, part.samples()) for name, part, counts in found if counts.nonfinite)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the call; a sentence each."""
        return ()

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield every argument that is no container, however deep, with its name, in the order of the signature."""
        for name, argument in self._named().items():
            yield from _leaves(name, argument)

    def _arrays(self) -> Iterator[tuple[str, Part]]:
        for path, leaf in self.leaves():
            if isinstance(leaf, tf.Tensor | tf.__internal__.CompositeTensor):
                yield from ((path, part) for _, part in parts_of(leaf))
            elif isinstance(leaf, np.ndarray | np.generic | float) and np.asarray(leaf).dtype.kind != "c":
                yield path, Part(np.asarray(leaf))

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
