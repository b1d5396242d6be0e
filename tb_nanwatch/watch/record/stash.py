"""What a bad step drew, its batch and random numbers: left in device memory by the guard, for the host to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, with_enclosing
from tb_nanwatch.watch.record.ring import device_variable
from tb_nanwatch.watch.replay.drawn import Drawn
from tb_nanwatch.watch.tf_internals import is_in_xla

NOTHING = -1


class _Kept(NamedTuple):
    """What is kept of a step: the batch of each replica, and what it drew besides."""

    batches: Any
    drawn: Drawn | None

    @property
    def tensors(self) -> list[tf.Tensor]:
        """All tensors, in order."""
        return [*_tensors_of(self.batches), *(self.drawn.tensors if self.drawn else [])]


class Stash:
    """Holds what was drawn in the first bad step since the host last asked; only a bad step copies anything.

    Attributes:
        handles: ids of the handles of its variables.
    """

    def __init__(self) -> None:
        """Begin empty; the variables come with the first trace."""
        self.handles: set[int] = set()
        self._offered: tuple[Any, list[Any]] | None = None
        self._which: tf.Variable | None = None
        self._kept: list[tuple[_Kept, list[tf.Variable]]] = []
        self._of_offer: list[tf.Variable] | None = None

    def offer(self, graph: Graph, batch: Any, *, replica: int = 0) -> None:
        """Name the batch of the step that is being traced: a structure of tensors, and of what stays the same.

        Args:
            graph: of the step.
            batch: of the replica; those of a step are offered in their order.
            replica: its number in this process.
        """
        # XLA has no room for a batch whose shape is not known before it comes: whoever calls it keeps the batch.
        before = self._offered[1] if replica and self._offered else []
        self._offered = None if is_in_xla(graph) else (graph, [*before, batch])
        self._of_offer = None

    def keep(self, graph: Graph, is_quiet: tf.Tensor, drawn: Drawn | None) -> tf.Tensor | None:
        """Keep what a step drew that was found bad, in the branch where that is so.

        Each guard of a step calls it, since any of its updates may be the first bad one. They share the variables of
        the batch.

        Args:
            graph: of the step, outside of the branch.
            is_quiet: whether no earlier bad step waits for the host.
            drawn: by the step until here, besides its batch; ``None`` where that cannot be kept.

        Returns:
            A tensor that is there when it has been kept; ``None`` where there is nothing to keep.
        """
        batches = None
        if self._offered is not None and any(self._offered[0] is one for one in with_enclosing(graph)):
            batches = self._offered[1]
            self._of_offer = self._variables_for(_tensors_of(batches)) if self._of_offer is None else self._of_offer
        if batches is None and (drawn is None or not drawn.outputs):
            return None
        variables = [
            *((self._of_offer or []) if batches is not None else []),
            *self._variables_for(drawn.tensors if drawn else []),
        ]
        return self._keep_if(is_quiet, _Kept(batches, drawn), variables)

    def keep_after(self, batch: Any, incident: tf.Tensor) -> None:
        """Keep the batch of a step that XLA compiled, after it, if it was bad.

        Args:
            batch: as for :meth:`offer`, in the graph that calls the step.
            incident: number of the bad row that waits for the host; negative if there is none.
        """
        is_free = self._place().read_value() == NOTHING
        self._keep_if((incident >= 0) & is_free, _Kept([batch], None), self._variables_for(_tensors_of([batch])))

    def forget_offer(self) -> None:
        """Know of no batch any more: the trace of its step is over."""
        self._offered = self._of_offer = None

    def take(self) -> tuple[Any, Drawn | None]:
        """Return what was kept, as eager tensors, and make room.

        Returns:
            The batch of each replica, and what the step drew besides; ``None`` for each that was not kept.
        """
        number = NOTHING if self._which is None else int(self._which.numpy())
        if number == NOTHING or self._which is None:
            return None, None
        self._which.assign(NOTHING)
        (batches, drawn), variables = self._kept[number]
        values = iter([tf.identity(variable) for variable in variables])
        if batches is not None:
            leaves = tf.nest.flatten(batches, expand_composites=True)
            filled = [next(values) if tf.is_symbolic_tensor(leaf) else leaf for leaf in leaves]
            batches = tf.nest.pack_sequence_as(batches, filled, expand_composites=True)
        return batches, None if drawn is None else drawn.with_values(list(values))

    def _place(self) -> tf.Variable:
        if self._which is None:
            with tf.init_scope():
                self._which = device_variable(tf.constant(NOTHING, tf.int64), "stash")
        return self._which

    def _variables_for(self, tensors: Sequence[tf.Tensor]) -> list[tf.Variable]:
        with tf.init_scope():
            variables = [_variable_like(tensor) for tensor in tensors]
        self.handles |= {id(variable.handle) for variable in (self._place(), *variables)}
        return variables

    def _keep_if(self, condition: tf.Tensor, kept: _Kept, variables: list[tf.Variable]) -> tf.Tensor:
        which, number = self._place(), len(self._kept)
        self._kept.append((kept, variables))

        def assign() -> tf.Tensor:
            pairs = zip(variables, kept.tensors, strict=True)
            with tf.control_dependencies([which.assign(number), *(one.assign(tensor) for one, tensor in pairs)]):
                return tf.constant(True)

        return tf.cond(condition, assign, lambda: tf.constant(False))


def _tensors_of(batch: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(batch, expand_composites=True) if tf.is_symbolic_tensor(leaf)]


def _variable_like(tensor: tf.Tensor) -> tf.Variable:
    known = [size or 0 for size in tensor.shape.as_list()] if tensor.shape.rank is not None else []
    empty = tf.constant("", shape=known) if tensor.dtype == tf.string else tf.zeros(known, tensor.dtype)
    return device_variable(empty, "stash", shape=tensor.shape)
