"""The batch of a bad step that drew it from an iterator: left in device memory by the guard, for the host to fetch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from tb_nanwatch.watch.graph import Graph, with_enclosing
from tb_nanwatch.watch.recorder import device_variable

NOTHING = -1


class Stash:
    """Holds the batch of the first bad step since the host last asked; only a bad step copies anything.

    Attributes:
        handles: ids of the handles of its variables.
    """

    def __init__(self) -> None:
        """Begin empty; the variables come with the first trace."""
        self.handles: set[int] = set()
        self._offered: tuple[Any, list[Any]] | None = None
        self._which: tf.Variable | None = None
        self._kept: list[tuple[Any, list[tf.Variable]]] = []
        self._number_of_offer: int | None = None

    def offer(self, graph: Graph, batch: Any, *, replica: int = 0) -> None:
        """Name the batch of the step that is being traced: a structure of tensors, and of what stays the same.

        Args:
            graph: of the step.
            batch: of the replica; those of a step are offered in their order.
            replica: its number in this process.
        """
        # XLA has no room for a batch whose shape is not known before it comes: whoever calls it keeps the batch.
        before = self._offered[1] if replica and self._offered else []
        self._offered = None if GraphOrParentsInXlaContext(graph) else (graph, [*before, batch])
        self._number_of_offer = None

    def keep(self, graph: Graph, is_quiet: tf.Tensor) -> tf.Tensor | None:
        """Keep the batch of a step that was found bad, in the branch where that is so.

        Each guard of a step calls it, since any of its updates may be the first bad one. They share the variables.

        Args:
            graph: of the step, outside of the branch.
            is_quiet: whether no earlier bad step waits for the host.

        Returns:
            A tensor that is there when it has been kept; ``None`` where the step's batch is not known.
        """
        if self._offered is None or not any(self._offered[0] is one for one in with_enclosing(graph)):
            return None
        if self._number_of_offer is None:
            self._number_of_offer = self._add(self._offered[1])
        return self._keep_if(is_quiet, self._offered[1], self._number_of_offer)

    def keep_after(self, batch: Any, incident: tf.Tensor) -> None:
        """Keep the batch of a step that XLA compiled, after it, if it was bad.

        Args:
            batch: as for :meth:`offer`, in the graph that calls the step.
            incident: number of the bad row that waits for the host; negative if there is none.
        """
        self._keep_if((incident >= 0) & (self._place().read_value() == NOTHING), [batch], self._add([batch]))

    def forget_offer(self) -> None:
        """Know of no batch any more: the trace of its step is over."""
        self._offered = self._number_of_offer = None

    def take(self) -> Any:
        """Return what was kept, a batch for each replica, as eager tensors, and make room; ``None`` if nothing was."""
        number = NOTHING if self._which is None else int(self._which.numpy())
        if number == NOTHING or self._which is None:
            return None
        self._which.assign(NOTHING)
        structure, variables = self._kept[number]
        values = iter([tf.identity(variable) for variable in variables])
        leaves = tf.nest.flatten(structure, expand_composites=True)
        filled = [next(values) if tf.is_symbolic_tensor(leaf) else leaf for leaf in leaves]
        return tf.nest.pack_sequence_as(structure, filled, expand_composites=True)

    def _place(self) -> tf.Variable:
        if self._which is None:
            with tf.init_scope():
                self._which = device_variable(tf.constant(NOTHING, tf.int64), "stash")
        return self._which

    def _add(self, batch: Any) -> int:
        """Make variables for a batch and return its number."""
        with tf.init_scope():
            variables = [_variable_like(tensor) for tensor in _tensors_of(batch)]
        self.handles |= {id(variable.handle) for variable in (self._place(), *variables)}
        self._kept.append((batch, variables))
        return len(self._kept) - 1

    def _keep_if(self, condition: tf.Tensor, batch: Any, number: int) -> tf.Tensor:
        which, (_, variables) = self._place(), self._kept[number]

        def assign() -> tf.Tensor:
            pairs = zip(variables, _tensors_of(batch), strict=True)
            with tf.control_dependencies([which.assign(number), *(one.assign(tensor) for one, tensor in pairs)]):
                return tf.constant(True)

        return tf.cond(condition, assign, lambda: tf.constant(False))


def _tensors_of(batch: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(batch, expand_composites=True) if tf.is_symbolic_tensor(leaf)]


def _variable_like(tensor: tf.Tensor) -> tf.Variable:
    known = [size or 0 for size in tensor.shape.as_list()] if tensor.shape.rank is not None else []
    empty = tf.constant("", shape=known) if tensor.dtype == tf.string else tf.zeros(known, tensor.dtype)
    return device_variable(empty, "stash", shape=tensor.shape)
