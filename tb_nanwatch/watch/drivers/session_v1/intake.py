"""What a step takes from outside besides its feed, and what of it comes to the host with a bad step.

A second run would draw other numbers, take the next element and call the user's Python function again. A variable that
is not watched may have been written by another fetch of the same run. Each of them is a tensor of the graph, and a
session can feed any tensor, so a replay is fed with what the step had.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor, is_at_top
from tb_nanwatch.watch.replay.probe import UNSEEDED
from tb_nanwatch.watch.tf_internals import array_of_proto, is_reference
from tb_nanwatch.watch.variables import is_variable, source_behind

ELEMENTS: Final = ("IteratorGetNext", "QueueDequeue", "ReaderRead", "Unstage", "BarrierTakeMany", "OrderedMapUnstage")
"""How the types of operations begin that take an element of a batch from where the next run takes another."""
_CALLS: Final = frozenset({"PyFunc", "EagerPyFunc"})
_SAMPLERS: Final = ("CandidateSampler", "UnigramSampler", "SampleDistortedBoundingBox")
_LARGEST_READ: Final = 1 << 20
"""Elements of a variable: a frozen network is not copied, and its variables are read when the run is over."""
_WORD: Final = 8
"""Bytes of a float64: as such all travels in the one vector that is fetched."""


@dataclass(frozen=True, eq=False)
class Intake:
    """The tensors by which values enter a step besides its feed.

    Attributes:
        elements: of iterators and queues: they are part of the batch.
        results: of operations that draw random numbers or call Python.
        reads: of variables that are not watched.
    """

    elements: Sequence[Tensor] = ()
    results: Sequence[Tensor] = ()
    reads: Sequence[Tensor] = ()

    @classmethod
    def of(cls, graph: Graph, operations: Collection[Op], *, watched: Collection[str]) -> Intake:
        """Find what enters a step.

        Args:
            graph: of the step.
            operations: that the step runs up to its guard.
            watched: names of the sources of variables whose values are known to have been finite.
        """
        ordered = [op for op in graph.get_operations() if op in operations]
        elements = [tensor for op in ordered if op.type.startswith(ELEMENTS) for tensor in _parts(op, operations)]
        results = [tensor for op in ordered if _is_result(op) for tensor in op.outputs if _is_packable(tensor)]
        reads = [
            op.outputs[0]
            for op in ordered
            if (source := source_read(op)) is not None and source.name not in watched and _is_small(source)
        ]
        return cls(*([one for one in some if is_at_top(one, graph)] for some in (elements, results, reads)))

    def without(self, put_back: Collection[str]) -> Intake:
        """Return the same without reads of reference variables that the step writes.

        Such a read is the variable's own memory, and holds by then what was written there.

        Args:
            put_back: names of the sources of what is put back: their values after that are those from before.
        """
        reads = [
            read for read in self.reads if not is_reference(read.op.inputs[0]) or _source_name(read) not in put_back
        ]
        return replace(self, reads=reads)

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All of them, in the order in which they are packed."""
        return [*self.elements, *self.results, *self.reads]

    def packed(self) -> tf.Tensor:
        """Return the values of all, float64 vector: how many bytes each takes, then the bytes."""
        if not self.tensors:
            return tf.zeros([0], tf.float64)
        blobs = [tf.io.serialize_tensor(tensor) for tensor in self.tensors]
        lengths = [tf.strings.length(blob) for blob in blobs]
        padded = [_padded(blob, length) for blob, length in zip(blobs, lengths, strict=True)]
        return tf.concat([tf.cast(tf.stack(lengths), tf.float64), *(_as_words(blob) for blob in padded)], 0)

    def unpacked(self, flat: npt.NDArray[np.float64]) -> dict[str, Any]:
        """Return the value of each tensor, by its name.

        Args:
            flat: from :meth:`packed`; empty where nothing was packed.
        """
        names = [str(tensor.name) for tensor in self.tensors]
        if not len(flat):
            return {}
        lengths, data = flat[: len(names)].astype(np.int64), flat[len(names) :].tobytes()
        words = -(-lengths // _WORD) * _WORD
        begins = np.cumsum(words) - words
        return {
            name: _value_of(data[begin : begin + length])
            for name, begin, length in zip(names, begins, lengths, strict=True)
        }

    def batch(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of some values that are part of the batch."""
        names = {str(tensor.name) for tensor in self.elements}
        return {name: value for name, value in values.items() if name in names}


def source_read(op: Op) -> Tensor | None:
    """Return the source of the variable that an operation does nothing but read; ``None`` of any other operation."""
    is_read = op.type == "ReadVariableOp" or (op.type == "Identity" and is_reference(op.inputs[0]))
    source = source_behind(op.inputs[0]) if is_read else None
    return source if source is not None and is_variable(source) else None


def takes_anew(op: Op) -> bool:
    """Return whether an operation brings forth something else when it is run again."""
    return op.type.startswith(ELEMENTS) or _is_result(op)


def _is_result(op: Op) -> bool:
    return op.type in UNSEEDED | _CALLS or any(part in op.type for part in _SAMPLERS)


def _parts(op: Op, operations: Collection[Op]) -> Iterator[Tensor]:
    """Yield the outputs of an operation; of one that cannot leave the graph, what is made of it."""
    for tensor in op.outputs:
        if _is_packable(tensor):
            yield tensor
        else:
            users = [user for user in tensor.consumers() if user in operations]
            yield from (part for user in users for part in user.outputs if _is_packable(part))


def _is_packable(tensor: Tensor) -> bool:
    return tensor.dtype not in (tf.variant, tf.resource) and not is_reference(tensor)


def _source_name(read: Tensor) -> str | None:
    source = source_read(read.op)
    return None if source is None else str(source.name)


def _is_small(source: Tensor) -> bool:
    shape = tf.TensorShape(source.op.get_attr("shape"))
    return shape.is_fully_defined() and int(shape.num_elements() or 0) <= _LARGEST_READ


def _padded(blob: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    return tf.strings.join([blob, tf.strings.substr("\0" * _WORD, 0, -length % _WORD)])


def _as_words(blob: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(blob, tf.float64)


def _value_of(blob: bytes) -> Any:
    return array_of_proto(blob)
