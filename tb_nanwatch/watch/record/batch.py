"""The batch of a step: its arguments, those that are non-finite, and the part that is small enough to save."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import MOST_SAMPLES, bad_samples, count_nonfinite
from tb_nanwatch.schema.records import Finding

_MIB: Final = 1024 * 1024
_MOST_NAMED: Final = 8


class StepCall(Protocol):
    """The arguments of a step, whichever way to train passes them."""

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the call, a sentence each."""

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield each value in the arguments that is not a container, with its name."""

    def findings(self) -> tuple[Finding, ...]:
        """Return each argument that holds a non-finite value."""


class Call(NamedTuple):
    """A call of a training step that is a Python function.

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

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the call, a sentence each."""
        return ()

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield each value in the arguments that is not a container, with its name, in the order of the signature."""
        for name, argument in self._named().items():
            yield from _leaves(name, argument)

    def findings(self) -> tuple[Finding, ...]:
        """Return each array or tensor argument that holds a non-finite value, in the order of the signature."""
        return findings_in(parts_by_name(self.leaves()))

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


# Non-finite values


class Part(NamedTuple):
    """The numbers of an argument, or of one of the tensors that make up an argument.

    Attributes:
        values: any shape.
        rows: the sample that each place of the leading dimension belongs to, int ``[N]``; ``None`` where that is the
            place itself.
    """

    values: npt.NDArray[Any]
    rows: npt.NDArray[Any] | None = None

    def samples(self) -> tuple[int, ...]:
        """Return the first samples that hold a non-finite value, in order."""
        if self.rows is None:
            return bad_samples(self.values)
        places = bad_samples(self.values, limit=len(self.rows))
        return tuple(int(row) for row in np.unique(self.rows[list(places)])[:MOST_SAMPLES])


def findings_in(parts: Iterable[tuple[str, Part]]) -> tuple[Finding, ...]:
    """Return a finding for each part, by name of its argument, that holds a non-finite value."""
    found = ((name, part, count_nonfinite(part.values)) for name, part in parts)
    return tuple(Finding("input", name, counts, part.samples()) for name, part, counts in found if counts.nonfinite)


def parts_by_name(leaves: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Part]]:
    """Yield the numbers in each argument that is an array, a tensor or a float, with its name."""
    for name, leaf in leaves:
        if isinstance(leaf, tf.Tensor | tf.__internal__.CompositeTensor):
            yield from ((name, part) for _, part in parts_of(leaf))
        elif isinstance(leaf, np.ndarray | np.generic | float) and np.asarray(leaf).dtype.kind != "c":
            yield name, Part(np.asarray(leaf))


def parts_of(leaf: Any) -> Iterator[tuple[Any, Part]]:
    """Yield each floating tensor that an argument is or consists of, with its numbers.

    Args:
        leaf: an eager tensor or a composite one. The samples of a sparse tensor are the rows of the dense tensor; those
            of a ragged tensor are the outermost rows.
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


# The part that is saved


@dataclass(frozen=True)
class Portion:
    """The part of a batch that is saved.

    Attributes:
        samples: indices of the samples that are saved; ``None`` for the whole batch.
        batch_size: the batch's leading dimension; 0 if the whole batch is saved.
        fits: whether the part is small enough to be saved.
        note: a remark on the part, in a sentence; empty if the whole batch is saved.
    """

    samples: tuple[int, ...] | None = None
    batch_size: int = 0
    fits: bool = True
    note: str = ""

    def cut(self, leaf: Any) -> Any:
        """Return the part of an argument: if it has the batch's leading dimension, the samples; else all of it."""
        if self.samples is None or _leading(leaf) != self.batch_size:
            return leaf
        if isinstance(leaf, tf.SparseTensor):
            rest = leaf.dense_shape[1:]
            rows = [
                tf.sparse.slice(leaf, tf.concat([[row], tf.zeros_like(rest)], 0), tf.concat([[1], rest], 0))
                for row in self.samples
            ]
            return tf.sparse.concat(0, rows)
        return leaf[list(self.samples)] if isinstance(leaf, np.ndarray) else tf.gather(leaf, self.samples)


def portion_that_fits(leaves: Sequence[Any], samples: Sequence[int], *, most_bytes: int) -> Portion:
    """Return the whole batch if it is small enough, or else its bad samples.

    Args:
        leaves: arguments that are not containers.
        samples: known bad samples, as indices in the batch's leading dimension.
        most_bytes: the limit.
    """
    whole = _bytes_of(leaves)
    if whole <= most_bytes:
        return Portion()
    size = _batch_size(leaves, samples)
    if not size:
        note = f"The batch is not saved: it takes {_mib(whole)}, and of more than {_mib(most_bytes)} only the bad "
        return Portion(fits=False, note=f"{note}samples are saved, which are not known.")
    rows = tuple(sorted({int(sample) for sample in samples}))
    portion = Portion(rows, size)
    part = _bytes_of([portion.cut(leaf) for leaf in leaves])
    if part > most_bytes:
        note = f"The batch is not saved: its bad samples alone take {_mib(part)}, more than {_mib(most_bytes)}."
        return Portion(fits=False, note=note)
    note = f"Of the batch's {size:,} samples only {_listed(rows)} are saved, which were bad: all of it takes "
    return Portion(rows, size, note=f"{note}{_mib(whole)}, more than {_mib(most_bytes)}.")


def _batch_size(leaves: Sequence[Any], samples: Sequence[int]) -> int:
    """Return the most frequent leading dimension of the arguments that hold all the samples; 0 if there is none."""
    if not samples:
        return 0
    sizes = Counter(size for leaf in leaves if (size := _leading(leaf)) > max(samples))
    return sizes.most_common(1)[0][0] if sizes else 0


def _leading(leaf: Any) -> int:
    """Return the size of the leading dimension; 0 if there is none."""
    if not isinstance(leaf, tf.Tensor | tf.RaggedTensor | tf.SparseTensor | np.ndarray) or not len(leaf.shape):
        return 0
    return int(leaf.shape[0] or 0)


def _bytes_of(leaves: Sequence[Any]) -> int:
    return sum(_bytes(part) for part in tf.nest.flatten(list(leaves), expand_composites=True))


def _bytes(leaf: Any) -> int:
    if not isinstance(leaf, tf.Tensor | np.ndarray):
        return len(leaf) if isinstance(leaf, str | bytes) else 0
    if isinstance(leaf, tf.Tensor) and leaf.dtype != tf.string:
        # This does not copy the tensor to the host.
        return int(leaf.shape.num_elements()) * int(leaf.dtype.size)
    array = np.asarray(leaf.numpy() if isinstance(leaf, tf.Tensor) else leaf)
    return sum(map(len, array.flat)) if array.dtype.kind == "O" else array.nbytes


def _listed(samples: tuple[int, ...]) -> str:
    named = [f"{sample:,}" for sample in samples[:_MOST_NAMED]]
    more = len(samples) - len(named)
    return f"{', '.join(named)} and {more} more" if more else ", ".join(named)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
