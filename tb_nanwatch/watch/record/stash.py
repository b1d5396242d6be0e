"""The stash: the batch and the random numbers of a bad step, which the guard keeps in device memory for the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, with_enclosing
from tb_nanwatch.watch.record.draws import Draws
from tb_nanwatch.watch.tf_internals import is_in_xla
from tb_nanwatch.watch.variables import device_variable

NOTHING = -1


class _Content(NamedTuple):
    """Values of a step: the batch of each replica, and what the step drew apart from its batch."""

    batches: Any
    drawn: Draws | None

    @property
    def tensors(self) -> list[tf.Tensor]:
        """All tensors, in order."""
        return [*_tensors_of(self.batches), *(self.drawn.tensors if self.drawn else [])]


class Stash:
    """Keeps the values of the first bad step since the host took the last; no other step copies anything.

    Attributes:
        handles: ids of the handles of the stash's variables.
    """

    def __init__(self) -> None:
        """Begin empty; the first trace creates the variables."""
        self.handles: set[int] = set()
        self._offered: tuple[Any, list[Any]] | None = None
        self._which: tf.Variable | None = None
        self._contents: list[tuple[_Content, list[tf.Variable]]] = []
        self._offered_variables: list[tf.Variable] | None = None

    def offer(self, graph: Graph, batch: Any, *, replica: int = 0) -> None:
        """Offer the batch of the step that is being traced, so that a guard can keep it.

        Args:
            graph: of the step.
            batch: a structure of tensors and other values, of one replica. Replicas offer theirs in order.
            replica: number of the replica in this process.
        """
        # Inside XLA a variable cannot change its shape to that of the batch: the caller of the step keeps the batch.
        before = self._offered[1] if replica and self._offered else []
        self._offered = None if is_in_xla(graph) else (graph, [*before, batch])
        self._offered_variables = None

    def keep(self, graph: Graph, is_quiet: tf.Tensor, drawn: Draws | None) -> tf.Tensor | None:
        """Keep the values of a bad step, in the branch that only a bad step takes.

        Each guard of a step calls this, because any update of the step may be the first bad one. The guards share the
        variables of the batch.

        Args:
            graph: of the step, outside the branch.
            is_quiet: whether the ring holds no earlier incident, bool scalar.
            drawn: by the step so far, apart from its batch; ``None`` if that cannot be kept.

        Returns:
            A tensor that is ready when the values are kept; ``None`` if there are none.
        """
        batches = None
        if self._offered is not None and any(self._offered[0] is outer for outer in with_enclosing(graph)):
            batches = self._offered[1]
            if self._offered_variables is None:
                self._offered_variables = self._variables_for(_tensors_of(batches))
        if batches is None and (drawn is None or not drawn.outputs):
            return None
        shared = [] if batches is None else self._offered_variables or []
        variables = [*shared, *self._variables_for(drawn.tensors if drawn else [])]
        return self._keep_if(is_quiet, _Content(batches, drawn), variables)

    def keep_after(self, batch: Any, incident: tf.Tensor) -> None:
        """Keep the batch of a step that XLA compiled, if the step was bad.

        Args:
            batch: as for :meth:`offer`, in the graph that calls the step.
            incident: number of the bad row that waits for the host, int64 scalar; negative if there is none.
        """
        is_free = self._place().read_value() == NOTHING
        self._keep_if((incident >= 0) & is_free, _Content([batch], None), self._variables_for(_tensors_of([batch])))

    def forget_offer(self) -> None:
        """Forget the batch that was offered, because the trace of its step is over."""
        self._offered = self._offered_variables = None

    def take(self) -> tuple[Any, Draws | None]:
        """Return the values that were kept, as eager tensors, and empty the stash.

        Returns:
            The batch of each replica, and what the step drew apart from it; each is ``None`` if it was not kept.
        """
        number = NOTHING if self._which is None else int(self._which.numpy())
        if number == NOTHING or self._which is None:
            return None, None
        self._which.assign(NOTHING)
        (batches, drawn), variables = self._contents[number]
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

    def _keep_if(self, condition: tf.Tensor, content: _Content, variables: list[tf.Variable]) -> tf.Tensor:
        which, number = self._place(), len(self._contents)
        self._contents.append((content, variables))

        def assign() -> tf.Tensor:
            writes = [variable.assign(tensor) for variable, tensor in zip(variables, content.tensors, strict=True)]
            with tf.control_dependencies([which.assign(number), *writes]):
                return tf.constant(True)

        return tf.cond(condition, assign, lambda: tf.constant(False))


def _tensors_of(batch: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(batch, expand_composites=True) if tf.is_symbolic_tensor(leaf)]


def _variable_like(tensor: tf.Tensor) -> tf.Variable:
    known = [size or 0 for size in tensor.shape.as_list()] if tensor.shape.rank is not None else []
    empty = tf.constant("", shape=known) if tensor.dtype == tf.string else tf.zeros(known, tensor.dtype)
    return device_variable(empty, "stash", shape=tensor.shape)
