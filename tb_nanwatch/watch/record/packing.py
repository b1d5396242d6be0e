"""Packing: values taken apart into plain arrays and a description that JSON holds, and put together again.

Nothing is pickled, so that to read what was packed runs no code of whoever packed it. What has no plain form (a model,
an iterator, a variable) is left out by name.
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
"""What NumPy calls a dtype that another package brought, as ml_dtypes does bfloat16; an npy file forgets which."""


@dataclass(frozen=True)
class LeftOut:
    """Stands where an argument was that could not be saved.

    Attributes:
        name: of the argument.
        type: of what it was.
    """

    name: str
    type: str


_MOST_EMPTY_ROWS: Final = 2**20
"""Of a ragged tensor: rows without values take no bytes in the file, and eight each in memory."""


class Packer:
    """Takes values apart.

    Attributes:
        arrays: what the nodes refer to by place; none holds Python objects.
    """

    def __init__(self, names: Mapping[int, str], cut: Callable[[Any], Any] = lambda leaf: leaf) -> None:
        """Begin with no arrays.

        Args:
            names: of leaves, by their id, for those that are left out.
            cut: called with each leaf that can be packed; what it returns is packed in its place.
        """
        self.arrays: list[Array] = []
        self._names, self._cut = names, cut

    def pack(self, value: Any) -> Node:
        """Return the node of a value, containers and all that is in them."""
        if isinstance(value, Mapping):
            return {"is": "dict", "items": [[self.pack(key), self.pack(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {**_kind_of_sequence(value), "items": [self.pack(item) for item in value]}
        if not is_packable(value):
            return {"is": "left out", "name": self._names.get(id(value), ""), "type": type(value).__name__}
        return self._leaf(self._cut(value))

    def _leaf(self, leaf: Any) -> Node:
        if isinstance(leaf, tf.RaggedTensor):
            size = leaf.uniform_row_length
            rows = {"splits": self._put(leaf.row_splits.numpy())} if size is None else {"size": int(size)}
            return {"is": "ragged", "values": self._leaf(leaf.values), "rows": int(leaf.nrows()), **rows}
        if isinstance(leaf, tf.SparseTensor):
            parts = {"indices": leaf.indices, "values": leaf.values, "shape": leaf.dense_shape}
            return {"is": "sparse", **{name: self._put(part.numpy()) for name, part in parts.items()}}
        if isinstance(leaf, tf.Tensor):
            return {"is": "tensor", **self._put(np.asarray(leaf.numpy()))}
        if isinstance(leaf, np.ndarray | np.generic):
            return {"is": "array" if isinstance(leaf, np.ndarray) else "number", **self._put(np.asarray(leaf))}
        return _node_of_scalar(leaf)

    def _put(self, array: Array) -> Node:
        if array.dtype.kind == "O":
            return self._put_strings(array.shape, list(array.flat))
        if array.dtype.isbuiltin == _USER_DEFINED:
            return {"at": self._add(array.view(f"u{array.dtype.itemsize}")), "dtype": array.dtype.name}
        return {"at": self._add(array)}

    def _put_strings(self, shape: tuple[int, ...], strings: list[Any]) -> Node:
        items = [item if isinstance(item, bytes) else item.encode("utf-8", "surrogatepass") for item in strings]
        lengths = np.array([len(item) for item in items], np.int64).reshape(shape)
        together = np.frombuffer(b"".join(items), np.uint8)
        is_text = any(isinstance(item, str) for item in strings)
        return {"bytes": self._add(together), "lengths": self._add(lengths), "text": is_text}

    def _add(self, array: Array) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1


class Unpacker:
    """Puts together what a :class:`Packer` took apart."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        """Read from these arrays, in the packer's order."""
        self._left = dict(enumerate(arrays))

    def unpack(self, node: Node) -> Any:
        """Return the value of a node.

        Raises:
            RecordError: if it is no node; what else is wrong with it shows as an error of Python's or TensorFlow's.
        """
        kind = node["is"]
        if kind in _SCALARS:
            return _SCALARS[kind](node["value"])
        if kind not in _READERS:
            raise RecordError(f"a packed value must be of a known kind; got {kind!r}")
        return _READERS[kind](self, node)

    def _take(self, place: int) -> Array:
        """Return an array, which is some value's alone: what many share would be copied for each."""
        if place not in self._left:
            raise RecordError(f"array {place} must be there, and belong to one value alone")
        return self._left.pop(place)

    def _dict(self, node: Node) -> dict[Any, Any]:
        return {self.unpack(key): self.unpack(item) for key, item in node["items"]}

    def _list(self, node: Node) -> list[Any]:
        return [self.unpack(item) for item in node["items"]]

    def _tuple(self, node: Node) -> tuple[Any, ...]:
        return tuple(self._list(node))

    def _namedtuple(self, node: Node) -> tuple[Any, ...]:
        # A field that had to be renamed once is named so again.
        make: Callable[..., tuple[Any, ...]] = namedtuple(node["name"], node["fields"], rename=True)  # type: ignore[misc]
        return make(*self._list(node))

    def _left_out(self, node: Node) -> LeftOut:
        return LeftOut(str(node["name"]), str(node["type"]))

    def _array(self, node: Node) -> Array:
        if "bytes" in node:
            return self._strings(node)
        array = self._take(node["at"])
        return array.view(tf.as_dtype(node["dtype"]).as_numpy_dtype) if "dtype" in node else array

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

    def _number(self, node: Node) -> Any:
        return self._array(node)[()]

    def _tensor(self, node: Node) -> tf.Tensor:
        return tf.constant(self._array(node), tf.string if "bytes" in node else None)

    def _sparse(self, node: Node) -> tf.SparseTensor:
        indices, values, shape = (self._tensor(node[part]) for part in ("indices", "values", "shape"))
        return tf.SparseTensor(indices, values, shape)

    def _ragged(self, node: Node) -> tf.RaggedTensor:
        values = self.unpack(node["values"])
        if "size" in node:
            if not node["size"] and node["rows"] > _MOST_EMPTY_ROWS:
                raise RecordError(f"a ragged tensor must have at most {_MOST_EMPTY_ROWS:,} empty rows")
            return tf.RaggedTensor.from_uniform_row_length(values, node["size"], node["rows"])
        return tf.RaggedTensor.from_row_splits(values, self._array(node["splits"]))


def is_packable(leaf: Any) -> bool:
    """Return whether something that is no container has a plain form."""
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return all(is_packable(part) for part in tf.nest.flatten(leaf, expand_composites=True))
    if isinstance(leaf, tf.Tensor):
        plain = leaf.dtype not in {tf.resource, tf.variant} and not leaf.dtype.is_quantized
        return plain and not tf.is_symbolic_tensor(leaf)
    if isinstance(leaf, np.ma.MaskedArray):
        return False
    if isinstance(leaf, np.ndarray | np.generic):
        return _is_plain(np.asarray(leaf))
    return leaf is None or isinstance(leaf, bool | int | float | complex | str | bytes)


def _is_plain(array: Array) -> bool:
    if array.dtype.kind == "O":
        return any(all(isinstance(item, kind) for item in array.flat) for kind in (bytes, str))
    # NumPy's strings of variable width can be written by pickling alone.
    return not array.dtype.hasobject and array.dtype.kind != "T"


def _kind_of_sequence(value: list[Any] | tuple[Any, ...]) -> Node:
    if isinstance(value, list):
        return {"is": "list"}
    fields = getattr(value, "_fields", None)
    return {"is": "tuple"} if fields is None else {"is": "namedtuple", "name": type(value).__name__, "fields": fields}


def _node_of_scalar(value: Any) -> Node:
    if value is None or isinstance(value, bool | str):
        return {"is": "value", "value": value}
    if isinstance(value, int):
        return {"is": "int", "value": hex(value)}
    if isinstance(value, float):
        return {"is": "float", "value": float.hex(value)}
    if isinstance(value, complex):
        return {"is": "complex", "value": [float.hex(value.real), float.hex(value.imag)]}
    return {"is": "bytes", "value": value.decode("latin-1")}


_SCALARS: Final[dict[str, Callable[[Any], Any]]] = {
    "value": lambda value: value,
    "int": lambda value: int(value, 16),
    "float": float.fromhex,
    "complex": lambda value: complex(*map(float.fromhex, value)),
    "bytes": lambda value: value.encode("latin-1"),
}
_READERS: Final[dict[str, Callable[[Unpacker, Node], Any]]] = {
    "dict": Unpacker._dict,
    "list": Unpacker._list,
    "tuple": Unpacker._tuple,
    "namedtuple": Unpacker._namedtuple,
    "left out": Unpacker._left_out,
    "array": Unpacker._array,
    "number": Unpacker._number,
    "tensor": Unpacker._tensor,
    "sparse": Unpacker._sparse,
    "ragged": Unpacker._ragged,
}
