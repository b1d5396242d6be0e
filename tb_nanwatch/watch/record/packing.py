"""Values taken apart into plain arrays and a description that JSON can hold, and put together again.

An ``npz`` of named arrays cannot hold the arguments of a step: these may be nested, ragged, sparse, strings or plain
numbers, and a loaded batch must run the step again as it is. Nothing is pickled, so that loading runs no code from
the file. A value without a plain form, such as a model, is left out by name.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema.records import Array

Node = dict[str, Any]
_USER_DEFINED: Final = 2
"""``isbuiltin`` of a dtype that another package defines, as ml_dtypes does bfloat16. An npy file does not hold it."""
_MOST_EMPTY_ROWS: Final = 2**20
"""Of a ragged tensor: a row without values takes no bytes in the file, and eight in memory."""
_SPARSE: Final = ("indices", "values", "shape")


@dataclass(frozen=True)
class LeftOut:
    """Takes the place of an argument that could not be saved.

    Attributes:
        name: of the argument.
        type: of its value.
    """

    name: str
    type: str


class Packer:
    """Takes values apart into arrays, and nodes that JSON can hold.

    Attributes:
        arrays: the nodes refer to them by place; none holds Python objects.
    """

    def __init__(self, names: Mapping[int, str], cut: Callable[[Any], Any]) -> None:
        """Begin with no arrays.

        Args:
            names: name of each leaf by its id, for leaves that are left out.
            cut: returns the part of a leaf that is saved.
        """
        self.arrays: list[Array] = []
        self._names, self._cut = names, cut

    def node(self, value: Any) -> Node:
        """Return the node of a value, which holds the nodes of all values in it."""
        if isinstance(value, Mapping):
            return {"is": "dict", "items": [[self.node(key), self.node(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {**_kind_of_sequence(value), "items": [self.node(item) for item in value]}
        if not is_packable(value):
            return {"is": "left out", "name": self._names.get(id(value), ""), "type": type(value).__name__}
        return self._leaf(self._cut(value))

    def _leaf(self, leaf: Any) -> Node:
        if isinstance(leaf, tf.RaggedTensor):
            size = leaf.uniform_row_length
            rows = {"splits": self._array(leaf.row_splits.numpy())} if size is None else {"size": int(size)}
            return {"is": "ragged", "values": self._leaf(leaf.values), "rows": int(leaf.nrows()), **rows}
        if isinstance(leaf, tf.SparseTensor):
            parts = {"indices": leaf.indices, "values": leaf.values, "shape": leaf.dense_shape}
            return {"is": "sparse", **{name: self._array(part.numpy()) for name, part in parts.items()}}
        if isinstance(leaf, tf.Tensor):
            return {"is": "tensor", **self._array(np.asarray(leaf.numpy()))}
        if isinstance(leaf, np.ndarray | np.generic):
            return {"is": "array" if isinstance(leaf, np.ndarray) else "number", **self._array(np.asarray(leaf))}
        return _scalar_node(leaf)

    def _array(self, array: Array) -> Node:
        if array.dtype.kind == "O":
            return self._strings(array)
        if array.dtype.isbuiltin == _USER_DEFINED:
            return {"at": self._add(array.view(f"u{array.dtype.itemsize}")), "dtype": array.dtype.name}
        return {"at": self._add(array)}

    def _strings(self, array: Array) -> Node:
        items: list[Any] = list(array.flat)
        encoded = [item if isinstance(item, bytes) else item.encode("utf-8", "surrogatepass") for item in items]
        lengths = np.array([len(item) for item in encoded], np.int64).reshape(array.shape)
        data, is_text = np.frombuffer(b"".join(encoded), np.uint8), any(isinstance(item, str) for item in items)
        return {"bytes": self._add(data), "lengths": self._add(lengths), "text": is_text}

    def _add(self, array: Array) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1


class Unpacker:
    """Puts together the values that a :class:`Packer` took apart."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        """Read from the arrays of a packer, in its order."""
        self._unused = dict(enumerate(arrays))

    def value(self, node: Node) -> Any:
        """Return the value of a node.

        Raises:
            RecordError: if its kind is unknown; any other mistake is an error of Python, NumPy or TensorFlow.
        """
        kind = node["is"]
        if kind not in _VALUE_OF:
            raise RecordError(f"a packed value must be of a known kind; got {kind!r}")
        return _VALUE_OF[kind](self, node)

    def items(self, node: Node) -> list[Any]:
        """Return the values in a container."""
        return [self.value(item) for item in node["items"]]

    def array(self, node: Node) -> Array:
        """Return an array."""
        if "bytes" in node:
            return self._strings(node)
        array = self._take(node["at"])
        return array.view(tf.as_dtype(node["dtype"]).as_numpy_dtype) if "dtype" in node else array

    def tensor(self, node: Node) -> tf.Tensor:
        """Return a dense tensor."""
        return tf.constant(self.array(node), tf.string if "bytes" in node else None)

    def ragged(self, node: Node) -> tf.RaggedTensor:
        """Return a ragged tensor."""
        values = self.value(node["values"])
        if "size" not in node:
            return tf.RaggedTensor.from_row_splits(values, self.array(node["splits"]))
        if not node["size"] and node["rows"] > _MOST_EMPTY_ROWS:
            raise RecordError(f"a ragged tensor must have at most {_MOST_EMPTY_ROWS:,} empty rows")
        return tf.RaggedTensor.from_uniform_row_length(values, node["size"], node["rows"])

    def _take(self, place: int) -> Array:
        # A file of few bytes could make many values share one array, and each would be a copy.
        if place not in self._unused:
            raise RecordError(f"array {place} must be there, and belong to one value alone")
        return self._unused.pop(place)

    def _strings(self, node: Node) -> Array:
        data, lengths = self._take(node["bytes"]).tobytes(), self._take(node["lengths"])
        if lengths.dtype.kind not in "iu" or not all(0 <= length <= len(data) for length in lengths.ravel().tolist()):
            raise RecordError("the lengths of texts must be those of parts of their bytes")
        ends = np.cumsum(lengths.reshape(-1), dtype=np.int64)
        items = np.empty(lengths.size, object)
        items[:] = [data[end - size : end] for end, size in zip(ends.tolist(), lengths.flat, strict=True)]
        if node["text"]:
            items[:] = [item.decode("utf-8", "surrogatepass") for item in items]
        return items.reshape(lengths.shape)


_VALUE_OF: Final[dict[str, Callable[[Unpacker, Node], Any]]] = {
    "value": lambda _, node: node["value"],
    "int": lambda _, node: int(node["value"], 16),
    "float": lambda _, node: float.fromhex(node["value"]),
    "complex": lambda _, node: complex(*map(float.fromhex, node["value"])),
    "bytes": lambda _, node: node["value"].encode("latin-1"),
    "dict": lambda unpacker, node: {unpacker.value(key): unpacker.value(item) for key, item in node["items"]},
    "list": Unpacker.items,
    "tuple": lambda unpacker, node: tuple(unpacker.items(node)),
    # rename: a field that namedtuple had to rename once gets the same name again.
    "namedtuple": lambda unpacker, node: namedtuple(node["name"], node["fields"], rename=True)(*unpacker.items(node)),
    "left out": lambda _, node: LeftOut(str(node["name"]), str(node["type"])),
    "array": Unpacker.array,
    "number": lambda unpacker, node: unpacker.array(node)[()],
    "tensor": Unpacker.tensor,
    "sparse": lambda unpacker, node: tf.SparseTensor(*(unpacker.tensor(node[part]) for part in _SPARSE)),
    "ragged": Unpacker.ragged,
}


def is_packable(leaf: Any) -> bool:
    """Return whether a value that is not a container has a plain form."""
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return all(is_packable(part) for part in tf.nest.flatten(leaf, expand_composites=True))
    if isinstance(leaf, tf.Tensor):
        is_plain = leaf.dtype not in {tf.resource, tf.variant} and not leaf.dtype.is_quantized
        return is_plain and not tf.is_symbolic_tensor(leaf)
    if isinstance(leaf, np.ma.MaskedArray):
        return False
    if isinstance(leaf, np.ndarray | np.generic):
        return _is_plain(np.asarray(leaf))
    return leaf is None or isinstance(leaf, bool | int | float | complex | str | bytes)


def _is_plain(array: Array) -> bool:
    if array.dtype.kind == "O":
        return any(all(isinstance(item, kind) for item in array.flat) for kind in (bytes, str))
    # NumPy writes its strings of variable width by pickling alone.
    return not array.dtype.hasobject and array.dtype.kind != "T"


def _kind_of_sequence(value: list[Any] | tuple[Any, ...]) -> Node:
    if isinstance(value, list):
        return {"is": "list"}
    fields = getattr(value, "_fields", None)
    return {"is": "tuple"} if fields is None else {"is": "namedtuple", "name": type(value).__name__, "fields": fields}


def _scalar_node(value: Any) -> Node:
    if value is None or isinstance(value, bool | str):
        return {"is": "value", "value": value}
    if isinstance(value, int):
        return {"is": "int", "value": hex(value)}
    if isinstance(value, float):
        return {"is": "float", "value": float.hex(value)}
    if isinstance(value, complex):
        return {"is": "complex", "value": [float.hex(value.real), float.hex(value.imag)]}
    return {"is": "bytes", "value": value.decode("latin-1")}
