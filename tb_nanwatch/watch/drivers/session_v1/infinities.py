"""Infinities that the variables of a graph hold as watching began: they are meant, and a NaN never is.

A graph is built before its variables have values, and may be finished by the time they have. So the session reads them
before its first run that trains, and each such run is fed the places of what was infinite. Where nothing was, it is fed
nothing. Only the branch that a step with a bad number takes looks at the places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Tensor
from tb_nanwatch.watch.guard.state import read_first
from tb_nanwatch.watch.row.infinities import Mask
from tb_nanwatch.watch.row.measure import InitiallyInfinite
from tb_nanwatch.watch.variables import dtype_of


@dataclass(frozen=True, eq=False)
class _Read:
    """A variable's value, read without waiting for anything.

    Attributes:
        value: of the variable.
        cell: half its sum of squares; finite only if every element is.
        first: the place of its first element among the elements of all.
        size: how many elements it has.
    """

    value: tf.Tensor
    cell: tf.Tensor
    first: int
    size: int


class Infinities:
    """Where the variables of a graph were Inf as watching began.

    Attributes:
        feed: what a run that trains is fed besides; empty where nothing was infinite.
    """

    def __init__(self, graph: Graph, sources: Sequence[Tensor]) -> None:
        """Build what reads them; nothing runs it but :meth:`read`.

        Args:
            graph: of the step.
            sources: of the variables; one whose shape is not known is left out.
        """
        self._reads: dict[str, _Read] = {}
        self._masks: dict[str, Mask] = {}
        self._is_read = False
        self.feed: Mapping[Any, Any] = {}
        first = 0
        with graph.as_default(), graph.control_dependencies(None), tf.name_scope("nanwatch/began"):
            self._places = tf.compat.v1.placeholder_with_default(np.zeros(0, np.int64), [None], name="infinite")
            for source in sources:
                shape = tf.TensorShape(source.op.get_attr("shape"))
                dtype = dtype_of(source)
                size = shape.num_elements() if dtype is not None and dtype.is_floating else None
                if size and source.name not in self._reads:
                    value = read_first(graph, source)
                    self._reads[source.name] = _Read(value, tf.nn.l2_loss(value), first, size)
                    first += size

    def beside(self, tensor: tf.Tensor, source: Tensor, *, is_whole: bool = False) -> tf.Tensor | InitiallyInfinite:
        """Return a value of a variable as it is measured: without the infinities that are meant.

        Args:
            tensor: the value.
            source: of the variable.
            is_whole: whether every infinity is meant if one was there, and not only those in the same places.
        """
        read = self._reads.get(source.name)
        return tensor if read is None else InitiallyInfinite(tensor, self._places, read.first, read.size, is_whole)

    def read(self, session: Any) -> bool:
        """Read the variables, the first time that it is called.

        Args:
            session: that is about to train.

        Returns:
            Whether they were read now.
        """
        if self._is_read:
            return False
        # A monitored session would take this for a run of the program.
        session = getattr(session, "_tf_sess", lambda: session)()
        try:
            cells = session.run({name: read.cell for name, read in self._reads.items()})
            doubtful = [name for name, cell in cells.items() if not np.isfinite(cell)]
            values = session.run({name: self._reads[name].value for name in doubtful}) if doubtful else {}
        except (RuntimeError, tf.errors.OpError):
            # The program's own run says what is wrong, such as a variable that has no value yet.
            return False
        masks = {name: np.asarray(np.isinf(value)) for name, value in values.items()}
        self._masks = {name: mask for name, mask in masks.items() if mask.any()}
        places = [np.flatnonzero(mask) + self._reads[name].first for name, mask in self._masks.items()]
        self.feed = {self._places: np.concatenate(places)} if places else {}
        self._is_read = True
        return True

    def masks_of(self, sources: Sequence[Tensor]) -> Iterator[Mask | None]:
        """Yield for each variable which of its elements were Inf; ``None`` where none was."""
        yield from (self._masks.get(source.name) for source in sources)

    def without(self, value: npt.NDArray[Any], source: Tensor) -> npt.NDArray[Any]:
        """Return a variable's value with 0 in the place of the infinities that are meant."""
        mask = self._masks.get(source.name)
        return value if mask is None or mask.shape != value.shape else np.where(mask & np.isinf(value), 0, value)
