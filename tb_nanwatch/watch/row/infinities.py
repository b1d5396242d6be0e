"""Infinities that a program holds on purpose: forbidden transitions, a maximum that begins at -Inf.

What was Inf as watching began is taken as meant, element by element. A NaN never is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, captured_handles
from tb_nanwatch.watch.variables import dtype_of, handle_of, source_behind

Mask = npt.NDArray[np.bool_]


class Infinities:
    """Where variables were Inf as watching began."""

    def __init__(self) -> None:
        """Begin before any variable was looked at."""
        self._masks: dict[int, tuple[Any, Mask | None]] = {}

    def of(self, handle: Any) -> Mask | None:
        """Return which elements of a variable were Inf when it was first asked after; ``None`` where none was.

        Args:
            handle: of the variable, in any graph.
        """
        handle = source_behind(handle)
        if id(handle) not in self._masks:
            # With the handle, so that no other object takes its place.
            self._masks[id(handle)] = handle, _infinite_elements(handle)
        return self._masks[id(handle)][1]

    def without(self, tensor: tf.Tensor, handle: Any) -> tf.Tensor:
        """Return a variable's value with 0 in the place of the infinities that are meant."""
        mask = self.of(handle)
        return tensor if mask is None else _cleared(tensor, mask)

    def checked(self, variable: Any) -> Any:
        """Return what gives a variable's value, as :meth:`without` does, to whoever asks for its ``numpy()``."""
        return variable if self.of(handle_of(variable)) is None else _Cleared(variable, self)


def note_on(mask: Mask, name: str) -> str:
    """Say that a trained variable began with infinities.

    Args:
        mask: which elements.
        name: of the variable.
    """
    return (
        f"takes the Inf in {mask.sum():,} of {mask.size:,} elements of {name!r} as meant: it was there as watching"
        " began"
    )


class _Cleared:
    def __init__(self, variable: Any, infinities: Infinities) -> None:
        self._variable, self._infinities = variable, infinities

    def numpy(self) -> Any:
        """Return the value."""
        value = tf.convert_to_tensor(self._variable)
        return self._infinities.without(value, handle_of(self._variable)).numpy()


def handles_read(graph: Graph, tensors: list[tf.Tensor]) -> tuple[set[int], set[str]]:
    """Return what tensors of a graph depend on: the ids of the handles of variables, and the names of operations."""
    handles = captured_handles(graph)
    waiting = [tensor.op for tensor in tensors if tf.is_symbolic_tensor(tensor) and tensor.graph is graph]
    seen: set[str] = set()
    found: set[int] = set()
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        found |= {id(source_behind(given)) for given in op.inputs if given.name in handles}
        waiting += [given.op for given in op.inputs]
    return found, seen


def _cleared(tensor: tf.Tensor, mask: Mask) -> tf.Tensor:
    return tf.where(tf.constant(mask) & tf.math.is_inf(tensor), tf.zeros_like(tensor), tensor)


def _infinite_elements(handle: Any) -> Mask | None:
    dtype = dtype_of(handle)
    if dtype is None or not dtype.is_floating or tf.is_symbolic_tensor(handle):
        return None
    with tf.init_scope():
        try:
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
            is_infinite = tf.math.is_inf(value)
            return np.asarray(is_infinite) if bool(tf.reduce_any(is_infinite)) else None
        except tf.errors.OpError:
            # What is made in the step that is being traced has no value yet.
            return None
