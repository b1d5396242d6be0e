"""Infinities that variables hold before training: forbidden transitions, a maximum that starts at -Inf.

They are no alarm: a program that starts with an infinity means it. The rule holds for each element by itself, and a NaN
is always an alarm. For a statistic of a layer, one such infinity excuses the infinities of all its elements.

An eager variable has its values when its step is traced, so :class:`InitialInfinities` keeps them as constants. A graph
of TensorFlow 1 is built before its variables have values, and may be final by the time they have. So
:class:`SessionInfinities` reads them before the first run that trains, and feeds the places of what was infinite to
each such run. Only the branch for a row with a non-finite cell looks at the places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Tensor
from tb_nanwatch.watch.row.measure import InitiallyInfinite
from tb_nanwatch.watch.tf_internals import session_inside
from tb_nanwatch.watch.variables import dtype_of, handle_of, read_first, source_behind

Mask = npt.NDArray[np.bool_]


class KnownInfinities(Protocol):
    """The infinities that variables held before training."""

    def mask_of(self, handle: Any) -> Mask | None:
        """Return which elements of a variable were Inf; ``None`` where none was.

        Args:
            handle: of the variable.
        """

    def excuse(self, tensor: tf.Tensor, handle: Any) -> tf.Tensor | InitiallyInfinite:
        """Return a variable's value to be measured without its initial infinities."""


def note_of(mask: Mask, name: str) -> str:
    """Return the note on a trained variable that held infinities before training.

    Args:
        mask: which elements.
        name: of the variable.
    """
    return (
        f"takes the Inf in {mask.sum():,} of {mask.size:,} elements of {name!r} as intended: it was there as watching"
        " began"
    )


def cleared(value: npt.NDArray[Any], mask: Mask | None) -> npt.NDArray[Any]:
    """Return a variable's value on the host with 0 in place of its initial infinities.

    Args:
        value: of the variable.
        mask: which elements were Inf; ``None`` where none was.
    """
    return value if mask is None or mask.shape != value.shape else np.where(mask & np.isinf(value), 0, value)


class InitialInfinities:
    """The initial infinities of variables that have values while their step is traced; see :class:`KnownInfinities`."""

    def __init__(self) -> None:
        """Begin before any variable is known."""
        self._masks: dict[int, tuple[Any, Mask | None]] = {}

    def mask_of(self, handle: Any) -> Mask | None:
        """Return which elements of a variable were Inf when it was first asked for; ``None`` where none was.

        Args:
            handle: of the variable, in any graph.
        """
        handle = source_behind(handle)
        if id(handle) not in self._masks:
            # With the handle, so that no other object gets its id.
            self._masks[id(handle)] = handle, _infinite_elements(handle)
        return self._masks[id(handle)][1]

    def excuse(self, tensor: tf.Tensor, handle: Any) -> tf.Tensor:
        """Return a variable's value with 0 in place of its initial infinities."""
        mask = self.mask_of(handle)
        if mask is None:
            return tensor
        return tf.where(tf.constant(mask) & tf.math.is_inf(tensor), tf.zeros_like(tensor), tensor)

    def checked(self, variable: Any) -> Any:
        """Return an object whose ``numpy()`` gives a variable's value without its initial infinities."""
        mask = self.mask_of(handle_of(variable))
        return variable if mask is None else _Checked(variable, mask)


class _Checked:
    def __init__(self, variable: Any, mask: Mask) -> None:
        self._variable, self._mask = variable, mask

    def numpy(self) -> npt.NDArray[Any]:
        """Return the value."""
        return cleared(np.asarray(self._variable.numpy()), self._mask)


@dataclass(frozen=True, eq=False)
class _Read:
    """A variable's value in a session's graph, read without waiting for anything.

    Attributes:
        value: of the variable.
        cell: half its sum of squares; finite only if every element is.
        first: index of its first element among the elements of all variables.
        size: how many elements it has.
    """

    value: tf.Tensor
    cell: tf.Tensor
    first: int
    size: int


class SessionInfinities:
    """The initial infinities of the variables of a session; see :class:`KnownInfinities`.

    Attributes:
        feed: what a run that trains is fed in addition; empty where nothing was infinite.
    """

    def __init__(self, graph: Graph, sources: Sequence[Tensor]) -> None:
        """Build the operations that read the variables; only :meth:`read` runs them.

        Args:
            graph: of the step.
            sources: of the variables. Variables of unknown shape are left out.
        """
        self._reads: dict[str, _Read] = {}
        self._masks: dict[str, Mask] = {}
        self._is_read = False
        self.feed: Mapping[Any, Any] = {}
        first = 0
        with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch/began"):
            self._places = tf.compat.v1.placeholder_with_default(np.zeros(0, np.int64), [None], name="infinite")
            for source in sources:
                shape, dtype = tf.TensorShape(source.op.get_attr("shape")), dtype_of(source)
                size = shape.num_elements() if dtype is not None and dtype.is_floating else None
                if size and source.name not in self._reads:
                    value = read_first(graph, source)
                    self._reads[source.name] = _Read(value, tf.nn.l2_loss(value), first, size)
                    first += size

    def mask_of(self, handle: Tensor) -> Mask | None:
        """Return which elements of a variable were Inf when it was read; ``None`` where none was."""
        return self._masks.get(handle.name)

    def excuse(self, tensor: tf.Tensor, handle: Tensor, *, is_whole: bool = False) -> tf.Tensor | InitiallyInfinite:
        """Return a variable's value to be measured without its initial infinities.

        Args:
            tensor: the value.
            handle: of the variable.
            is_whole: whether one initial infinity excuses the infinities of all elements.
        """
        read = self._reads.get(handle.name)
        return tensor if read is None else InitiallyInfinite(tensor, self._places, read.first, read.size, is_whole)

    def read(self, session: Any) -> bool:
        """Read the variables, at the first call only.

        Args:
            session: that is about to train.

        Returns:
            Whether this call read them.
        """
        if self._is_read:
            return False
        # A monitored session would treat this as a run of the program.
        session = session_inside(session)
        try:
            cells = session.run({name: read.cell for name, read in self._reads.items()})
            doubtful = [name for name, cell in cells.items() if not np.isfinite(cell)]
            values = session.run({name: self._reads[name].value for name in doubtful}) if doubtful else {}
        except (RuntimeError, tf.errors.OpError):
            # The program's own run reports the error, such as a variable that has no value yet.
            return False
        masks = {name: np.asarray(np.isinf(value)) for name, value in values.items()}
        self._masks = {name: mask for name, mask in masks.items() if mask.any()}
        places = [np.flatnonzero(mask) + self._reads[name].first for name, mask in self._masks.items()]
        self.feed = {self._places: np.concatenate(places)} if places else {}
        self._is_read = True
        return True


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
            # A variable that the current trace creates has no value yet.
            return None
