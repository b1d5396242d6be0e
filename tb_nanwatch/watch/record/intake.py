"""Values that enter a run of a session: its feed, and those that a second run would not get again.

A second run would draw other numbers, take the next element and call the user's Python function again. Another fetch of
the same run may have written a variable that is not watched. Each such value is a tensor of the graph, and a session
can feed any tensor. So a bad step brings them to the host, and a replay is fed with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.schema.records import Finding
from tb_nanwatch.watch.graphs import Graph, Op, Tensor, ancestors, is_at_top
from tb_nanwatch.watch.record.batch import findings_in, parts_by_name
from tb_nanwatch.watch.record.draws import UNSEEDED, takes_element
from tb_nanwatch.watch.tf_internals import array_of_proto, is_reference
from tb_nanwatch.watch.variables import handle_of, is_used_by, is_variable, source_behind

_CALLS: Final = frozenset({"PyFunc", "EagerPyFunc"})
_SAMPLERS: Final = ("CandidateSampler", "UnigramSampler", "SampleDistortedBoundingBox")
_LARGEST_READ: Final = 1 << 20
"""Elements of a variable. A larger one, such as a frozen layer, is not copied: a replay reads it after the run."""
_WORD: Final = 8
"""Bytes of a float64: the one vector that is fetched holds all values as such."""


@dataclass(frozen=True, eq=False)
class FedCall:
    """A run of a session, as the call of a step whose one argument is the feed.

    Attributes:
        fed: the feed, by name of the tensor; with the elements that the run took.
        entered: values that entered the run in other ways, by name of the tensor.
        elements: names of tensors that a replay feeds and the user did not.
        notes: remarks on the run, a sentence each.
    """

    fed: Mapping[str, Any]
    entered: Mapping[str, Any] = field(default_factory=dict)
    elements: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, graph: Graph, feed_dict: Mapping[Any, Any] | None) -> FedCall:
        """Return the call of a run.

        Args:
            graph: of the session.
            feed_dict: as the user gave it.
        """
        return cls(dict(_by_name(graph, feed_dict or {})))

    @property
    def args(self) -> tuple[Any, ...]:
        """The feed, as the one positional argument."""
        return (self.fed,)

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """No keyword arguments."""
        return {}

    def with_own_arrays(self) -> FedCall:
        """Return this call with copies of its arrays, because the user may overwrite his own after the run."""
        own = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in self.fed.items()}
        return replace(self, fed=own)

    def with_entered(self, values: Mapping[str, Any], intake: Intake) -> FedCall:
        """Return this call with the values that entered the run in other ways than the feed.

        Args:
            values: by name of the tensor.
            intake: the tensors. Elements of an iterator or a queue join the feed, because they are the batch.
        """
        batch = intake.batch(values)
        others = {name: value for name, value in values.items() if name not in batch}
        return FedCall({**self.fed, **batch}, others, frozenset(batch))

    def findings(self) -> tuple[Finding, ...]:
        """Return each value in the user's feed that is non-finite.

        Elements of iterators are known for a bad step only. In finite steps they may be non-finite too, and do no harm.
        """
        rows = {name_of_fed(name): samples for name, samples in rows_of_sparse(self.fed).items()}
        parts = ((name, part._replace(rows=rows.get(name))) for name, part in parts_by_name(self.leaves()))
        elements = {name_of_fed(name) for name in self.elements}
        return findings_in((name, part) for name, part in parts if name not in elements)

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield each value of the feed, with the name of its placeholder."""
        for name, value in self.fed.items():
            yield name_of_fed(name), np.asarray(value) if isinstance(value, list | tuple) else value


def rows_of_sparse(fed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of the dense tensor for each value of a sparse placeholder, by name of the values' tensor."""
    rows = {}
    for name, values in fed.items():
        base, is_values, _ = name.rpartition("/values:0")
        indices = np.asarray(fed.get(f"{base}/indices:0", ()) if is_values else ())
        if indices.ndim == 2 and len(indices) == len(values):
            rows[name] = indices[:, 0]
    return rows


def name_of_fed(name: str) -> str:
    """Return the name of the placeholder of a fed tensor.

    Example:
        >>> name_of_fed("inputs/x:0")
        'inputs/x'
    """
    return name.removesuffix(":0")


def fed_gradients(gradients: Sequence[Tensor], loss: Tensor | None, variables: Sequence[Any]) -> dict[str, int]:
    """Return the placeholders that are fed with gradients from another run.

    No variable is on the way from such a placeholder to the gradient. A non-finite value there is no bad batch: the
    backward pass of the other run was bad.

    Args:
        gradients: before clipping.
        loss: ``None`` if it is not given.
        variables: one for each gradient.

    Returns:
        Place of the variable, by name of the placeholder.
    """
    sources = [handle_of(variable) for variable in variables]
    of_loss = set() if loss is None else ancestors([loss])
    found: dict[str, int] = {}
    for place, gradient in enumerate(gradients):
        behind = ancestors([gradient])
        if not is_used_by(behind, sources):
            found.update({op.name: place for op in behind - of_loss if op.type.startswith("Placeholder")})
    return found


def _by_name(graph: Graph, feed_dict: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in feed_dict.items():
        if isinstance(key, tf.SparseTensor):
            parts = (key.indices, key.values, key.dense_shape)
            yield from ((part.name, given) for part, given in zip(parts, value, strict=True))
        else:
            yield graph.as_graph_element(key, allow_operation=False).name, value


@dataclass(frozen=True, eq=False)
class Intake:
    """The tensors by which values enter a step in other ways than its feed.

    Attributes:
        elements: elements of iterators and queues, which are part of the batch.
        results: outputs of operations that draw random numbers or call Python.
        reads: values of variables that are not watched.
    """

    elements: Sequence[Tensor] = ()
    results: Sequence[Tensor] = ()
    reads: Sequence[Tensor] = ()

    @classmethod
    def of(cls, graph: Graph, operations: Collection[Op], *, watched: Collection[str]) -> Intake:
        """Find the tensors by which values enter a step.

        Args:
            graph: of the step.
            operations: the operations that the step runs before its guard.
            watched: names of the sources of variables that were finite before the step.
        """
        ordered = [op for op in graph.get_operations() if op in operations]
        elements = [tensor for op in ordered if takes_element(op) for tensor in _parts(op, operations)]
        results = [tensor for op in ordered if _is_result(op) for tensor in op.outputs if _is_packable(tensor)]
        reads = [
            op.outputs[0]
            for op in ordered
            if (source := source_read(op)) is not None and source.name not in watched and _is_small(source)
        ]
        return cls(*([tensor for tensor in group if is_at_top(tensor, graph)] for group in (elements, results, reads)))

    def without(self, put_back: Collection[str]) -> Intake:
        """Return this intake without reads of reference variables that the step writes.

        Such a read is the variable's own memory. When the host fetches it, it holds the value that the step wrote.

        Args:
            put_back: names of the sources of variables that the guard restores; a replay reads them again.
        """
        reads = [
            read for read in self.reads if not is_reference(read.op.inputs[0]) or _source_name(read) not in put_back
        ]
        return replace(self, reads=reads)

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All tensors, in the order in which they are packed."""
        return [*self.elements, *self.results, *self.reads]

    def packed(self) -> tf.Tensor:
        """Return the values of all tensors as a float64 vector: the number of bytes of each, then the bytes."""
        if not self.tensors:
            return tf.zeros([0], tf.float64)
        blobs = [tf.io.serialize_tensor(tensor) for tensor in self.tensors]
        lengths = [tf.strings.length(blob) for blob in blobs]
        padded = [_padded(blob, length) for blob, length in zip(blobs, lengths, strict=True)]
        return tf.concat([tf.cast(tf.stack(lengths), tf.float64), *(_as_words(blob) for blob in padded)], 0)

    def unpacked(self, flat: npt.NDArray[np.float64]) -> dict[str, Any]:
        """Return the value of each tensor, by its name.

        Args:
            flat: from :meth:`packed`; empty if nothing was packed.
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
        """Return the values that are part of the batch."""
        names = {str(tensor.name) for tensor in self.elements}
        return {name: value for name, value in values.items() if name in names}


def source_read(op: Op) -> Tensor | None:
    """Return the source of the variable that an operation reads; ``None`` if the operation does anything else."""
    is_read = op.type == "ReadVariableOp" or (op.type == "Identity" and is_reference(op.inputs[0]))
    source = source_behind(op.inputs[0]) if is_read else None
    return source if source is not None and is_variable(source) else None


def takes_anew(op: Op) -> bool:
    """Return whether an operation has another output when it runs again."""
    return takes_element(op) or _is_result(op)


def _is_result(op: Op) -> bool:
    return op.type in UNSEEDED | _CALLS or any(part in op.type for part in _SAMPLERS)


def _parts(op: Op, operations: Collection[Op]) -> Iterator[Tensor]:
    """Yield the outputs of an operation; in place of an output that cannot leave the graph, those computed from it."""
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
