"""Putting back what the forward pass wrote before the guard could see that the step was bad.

A variable that is written by something the update waits for is put back in the same run. One that is written beside
it (``tf.group(train_op, update_ops)``) may be written after the guard as well as before: its value from before comes to
the host with a bad step, and is assigned again when the run is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.drivers.session_v1.intake import takes_anew
from tb_nanwatch.watch.graphs import Graph, Op, Tensor, ancestors, is_in_loop
from tb_nanwatch.watch.variables import dtype_of, handle_of, variable_writes


@dataclass(frozen=True, eq=False)
class Kept:
    """A variable's value from before the step.

    Attributes:
        source: of the variable.
        value: read before anything of the step writes it.
    """

    source: Tensor
    value: tf.Tensor

    def put_back(self) -> Op:
        """Return an operation that assigns it again."""
        if self.source.dtype == tf.resource:
            return tf.raw_ops.AssignVariableOp(resource=self.source, value=self.value)
        return tf.raw_ops.Assign(ref=self.source, value=self.value).op


@dataclass(frozen=True, eq=False)
class KeptState:
    """What a step writes beside its update.

    Attributes:
        before: written before the guard.
        beside: written by operations of ``UPDATE_OPS`` for which the update does not wait.
    """

    before: Sequence[Kept]
    beside: Sequence[Kept]

    @classmethod
    def of(cls, graph: Graph, needed: Iterable[Any]) -> KeptState:
        """Keep what the operations built so far write.

        Args:
            graph: of the step.
            needed: operations and tensors that the guard waits for.
        """
        first = ancestors(needed)
        others = ancestors(graph.get_collection(tf.compat.v1.GraphKeys.UPDATE_OPS)) - first
        before = _keep(graph, first)
        known = {kept.source.name for kept in before}
        beside = [
            kept for kept in _keep(graph, others) if kept.source.name not in known and _has_plain_form(kept.value)
        ]
        return cls(before, beside)

    def by_host(self) -> KeptState:
        """Return the same, with all of it to be put back by :meth:`put_back_beside`: no operation waits to do it."""
        return KeptState((), [*(kept for kept in self.before if _has_plain_form(kept.value)), *self.beside])

    def beside_flat(self) -> tf.Tensor:
        """Return the values of what is written beside, one after the other, float64 ``[n]``."""
        flat = [tf.reshape(tf.cast(kept.value, tf.float64), [-1]) for kept in self.beside]
        return tf.concat(flat, 0) if flat else tf.zeros([0], tf.float64)

    @property
    def sources(self) -> set[str]:
        """Names of the sources of what is put back."""
        return {kept.source.name for kept in (*self.before, *self.beside)}

    @property
    def beside_size(self) -> int:
        """How many values :meth:`beside_flat` gives."""
        return sum(int(kept.value.shape.num_elements() or 0) for kept in self.beside)

    def put_back_beside(self, session: Any, flat: npt.NDArray[np.float64]) -> None:
        """Assign again what was written beside a bad step that has run.

        Args:
            session: that ran it.
            flat: from :meth:`beside_flat`.
        """
        initializers = initializers_of(session.graph)
        at = 0
        for kept in self.beside:
            shape = tuple(kept.value.shape)
            size = int(np.prod(shape))
            values, at = flat[at : at + size].reshape(shape), at + size
            initializer = initializers.get(kept.source.name)
            if initializer is not None:
                # What assigns a variable its first value assigns it any that is fed instead; nothing need be added to
                # a graph that may be finished.
                session.run(initializer, {initializer.inputs[1]: values.astype(kept.value.dtype.as_numpy_dtype)})


def written_values(graph: Graph, needed: Iterable[Any]) -> dict[str, tuple[Tensor, tf.Tensor]]:
    """Return what is written to each variable: its new value, or what is added to it.

    Of ``UPDATE_OPS`` only what is made of values that the step has: they may be those of another network.

    Args:
        graph: of the step.
        needed: operations and tensors that the guard waits for.

    Returns:
        By name of the variable, its source and that value.
    """
    found: dict[str, tuple[Tensor, tf.Tensor]] = {}
    updates = graph.get_collection(tf.compat.v1.GraphKeys.UPDATE_OPS)
    first = ancestors(needed)
    for op, source in _in_order(graph, ancestors([*needed, *updates])):
        if op._get_control_flow_context() is None and (op in first or not _asks_for_more(op, first)):
            values = [one for one in op.inputs if one.dtype.is_floating and not one.dtype._is_ref_dtype]
            found.update((str(source.op.name), (source, value)) for value in values)
    return found


def _asks_for_more(op: Op, first: set[Op]) -> bool:
    """Return whether what an operation is given takes or changes anything that the step itself does not."""
    others = ancestors(op.inputs) - first
    takes = any(one.type == "Placeholder" or takes_anew(one) for one in others)
    return takes or any(True for _ in variable_writes(others))


def _keep(graph: Graph, operations: set[Op]) -> list[Kept]:
    kept: dict[str, Kept] = {}
    for op, source in _in_order(graph, operations):
        if is_in_loop(op):
            continue
        if source.name not in kept:
            kept[source.name] = Kept(source, read_first(graph, source))
        op._add_control_input(kept[source.name].value.op)
    return list(kept.values())


def read_first(graph: Graph, source: Tensor) -> tf.Tensor:
    """Return the value of a variable, read without waiting for anything."""
    with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch"):
        if source.dtype == tf.resource:
            return tf.raw_ops.ReadVariableOp(resource=source, dtype=dtype_of(source))
        # What is read of a reference is the variable's own memory, and what writes it writes it in place.
        return tf.raw_ops.DeepCopy(x=source)


def placeholder_for(graph: Graph, source: Tensor) -> tf.Tensor:
    """Return a placeholder for a value of a variable."""
    with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch"):
        return tf.compat.v1.placeholder(dtype_of(source), source.op.get_attr("shape"))


def _has_plain_form(value: tf.Tensor) -> bool:
    return bool(value.shape.is_fully_defined() and (value.dtype.is_floating or value.dtype.is_integer))


def _in_order(graph: Graph, operations: set[Op]) -> Sequence[tuple[Op, Tensor]]:
    return list(variable_writes(op for op in graph.get_operations() if op in operations))


def initializers_of(graph: Graph) -> Mapping[str, Op]:
    """Return what assigns each variable of a graph its first value, by the name of its source."""
    keys = tf.compat.v1.GraphKeys
    variables = [*graph.get_collection(keys.GLOBAL_VARIABLES), *graph.get_collection(keys.LOCAL_VARIABLES)]
    return {handle_of(variable).name: variable.initializer for variable in variables}
