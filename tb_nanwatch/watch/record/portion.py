"""How much of a batch is saved: the whole of it, or where that takes too much, its bad samples alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

_MIB: Final = 1024 * 1024
_MOST_NAMED: Final = 8


@dataclass(frozen=True)
class Portion:
    """What is saved of a batch.

    Attributes:
        samples: of each argument with the batch's leading dimension, the indices that are saved; ``None`` for all.
        batch_size: the batch's leading dimension; 0 where it is of no interest.
        fits: whether that is little enough.
        note: what there is to say about it, in a sentence; empty where the batch is saved as it is.
    """

    samples: tuple[int, ...] | None = None
    batch_size: int = 0
    fits: bool = True
    note: str = ""

    def of(self, leaf: Any) -> Any:
        """Return what is saved of an argument."""
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
    """Decide how much of a batch is saved.

    Args:
        leaves: arguments that are no containers.
        samples: indices of the bad samples in the batch's leading dimension, as far as they are known.
        most_bytes: that may be saved.
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
    taken = _bytes_of([portion.of(leaf) for leaf in leaves])
    if taken > most_bytes:
        note = f"The batch is not saved: its bad samples alone take {_mib(taken)}, more than {_mib(most_bytes)}."
        return Portion(fits=False, note=note)
    note = f"Of the batch's {size:,} samples only {_listed(rows)} are saved, which were bad: all of it takes "
    return Portion(rows, size, note=f"{note}{_mib(whole)}, more than {_mib(most_bytes)}.")


def _batch_size(leaves: Sequence[Any], samples: Sequence[int]) -> int:
    """Return the leading dimension that most arguments have, of those that have all the samples; 0 for none."""
    if not samples:
        return 0
    sizes = Counter(size for leaf in leaves if (size := _leading(leaf)) > max(samples))
    return sizes.most_common(1)[0][0] if sizes else 0


def _leading(leaf: Any) -> int:
    """Return the size of the leading dimension; 0 where there is none."""
    if not isinstance(leaf, tf.Tensor | tf.RaggedTensor | tf.SparseTensor | np.ndarray) or not len(leaf.shape):
        return 0
    return int(leaf.shape[0] or 0)


def _bytes_of(leaves: Sequence[Any]) -> int:
    return sum(_bytes(part) for part in tf.nest.flatten(list(leaves), expand_composites=True))


def _bytes(leaf: Any) -> int:
    if not isinstance(leaf, tf.Tensor | np.ndarray):
        return len(leaf) if isinstance(leaf, str | bytes) else 0
    if isinstance(leaf, tf.Tensor) and leaf.dtype != tf.string:
        # Told without copying it to the host.
        return int(leaf.shape.num_elements()) * int(leaf.dtype.size)
    array = np.asarray(leaf.numpy() if isinstance(leaf, tf.Tensor) else leaf)
    return sum(map(len, array.flat)) if array.dtype.kind == "O" else array.nbytes


def _listed(samples: tuple[int, ...]) -> str:
    named = [f"{sample:,}" for sample in samples[:_MOST_NAMED]]
    more = len(samples) - len(named)
    return f"{', '.join(named)} and {more} more" if more else ", ".join(named)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
