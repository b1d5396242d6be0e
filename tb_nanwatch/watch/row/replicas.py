"""The replicas of a step, measured each by itself and recorded as one row.

A row holds the cells of every replica, one replica after the other; those of other processes are fetched, so that each
process has the same row before it and comes to the same decision about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.diagnosis.sightings import place_of_role
from tb_nanwatch.numerics.spans import merge_alike
from tb_nanwatch.schema.records import PHASES, Finding, IntArray, Role, Series
from tb_nanwatch.watch.row.cells import Cell, Layout, Rows
from tb_nanwatch.watch.row.observation import Observation
from tb_nanwatch.watch.tf_internals import regrouped

_OF_REPLICA: Final = re.compile(r"(.*)/replica_(\d+)")
_OF_THE_STEP: Final[frozenset[Role]] = frozenset({"weight"})
"""What every replica has the same of."""


@dataclass(frozen=True, eq=False)
class Replicas:
    """Which replicas there are, and where.

    Attributes:
        strategy: that runs them.
        devices: of this process, one for each of its replicas.
        worker: which of several processes this is, from 0.
        workers: how many processes there are.
    """

    strategy: Any  # TensorFlow ships no type stubs for strategies.
    devices: tuple[str, ...]
    worker: int
    workers: int

    @classmethod
    def of(cls, strategy: Any) -> Replicas:
        """Return the replicas of a strategy that mirrors variables."""
        devices = tuple(strategy.extended.worker_devices)
        number_of = getattr(strategy.extended, "_get_replica_id_in_sync_group", int)
        return cls(strategy, devices, number_of(0) // len(devices), strategy.num_replicas_in_sync // len(devices))

    @property
    def total(self) -> int:
        """How many replicas there are in all processes."""
        return self.workers * len(self.devices)

    @property
    def first(self) -> int:
        """The number, over all processes, of the first replica of this one."""
        return self.worker * len(self.devices)

    def layout(self, one: Layout) -> ReplicaLayout:
        """Return the layout of a row of all of them, from that of one."""
        given = {field.name: getattr(one, field.name) for field in fields(Layout)}
        return ReplicaLayout(**given, workers=self.workers, worker=self.worker, local=len(self.devices))

    def gathered(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return what each replica has, of all of them, ``[total, ...]``.

        Args:
            tensors: of the replicas of this process, of one shape.
        """
        if self.workers == 1:
            return tf.stack(tensors)
        # A sum with zeros in the place of all others: the one collective that every communication has.
        padded = [self._among_zeros(tensor, self.first + place) for place, tensor in enumerate(tensors)]
        shares = regrouped(padded)
        summed = self.strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, shares, destinations=shares)
        together: tf.Tensor = self.strategy.experimental_local_results(summed)[0]
        return together

    def _among_zeros(self, tensor: tf.Tensor, place: int) -> tf.Tensor:
        around = [[place, self.total - place - 1], *[[0, 0]] * len(tensor.shape)]
        return tf.pad(tensor[tf.newaxis], around)


@dataclass(frozen=True, eq=False)
class SharedObservation:
    """What is seen of one step by all replicas; see :class:`~tb_nanwatch.watch.row.observation.Observation`.

    Attributes:
        replicas: that see it.
        parts: what those of this process see.
    """

    replicas: Replicas
    parts: Sequence[Observation]

    @property
    def scale(self) -> tf.Tensor | None:
        """The scale of the loss, the same for all."""
        return self.parts[0].scale

    def row(self) -> tf.Tensor:
        """Return the row, float32 ``[total * cells]``."""
        return tf.reshape(self._of_all(lambda one, _: one.row()), [-1])

    def counts(self) -> tf.Tensor:
        """Return the exact counts of every cell's tensor, int64 ``[total * cells, 4]``."""
        return tf.reshape(self._of_all(lambda one, _: one.counts()), [-1, 4])

    def settled_row(self) -> tf.Tensor:
        """Return the row with the counts known."""
        return tf.reshape(self._of_all(lambda one, _: one.settled_row()), [-1])

    def is_overflow(self, counts: tf.Tensor) -> tf.Tensor:
        """Return whether nothing was bad with any replica but gradients that overflowed for their scale."""
        told = [(self.parts[0].is_overflow(table), tf.reduce_sum(table[:, 1:]) == 0) for table in self._apart(counts)]
        return tf.reduce_any([overflow for overflow, _ in told]) & tf.reduce_all([a | b for a, b in told])

    def overflown_row(self, row: tf.Tensor) -> tf.Tensor:
        """Return the row of a step whose gradients overflowed for their scale: without them."""
        return tf.concat([self.parts[0].overflown_row(part) for part in self._apart(row)], axis=0)

    def _apart(self, together: tf.Tensor) -> list[tf.Tensor]:
        parts: list[tf.Tensor] = tf.split(together, self.replicas.total)
        return parts

    def _of_all(self, look: Callable[[Observation, int], tf.Tensor]) -> tf.Tensor:
        seen = []
        for place, (one, device) in enumerate(zip(self.parts, self.replicas.devices, strict=True)):
            with tf.device(device):
                seen.append(look(one, place))
        return self.replicas.gathered(seen)


@dataclass(frozen=True)
class ReplicaLayout(Layout):
    """The layout of a row with the cells of every replica.

    Attributes:
        workers: how many processes there are.
        worker: which of them this is.
        local: how many replicas each has.
    """

    workers: int = 1
    worker: int = 0
    local: int = 1

    @property
    def one(self) -> Layout:
        """The layout of one replica's cells."""
        return Layout(**{field.name: getattr(self, field.name) for field in fields(Layout)})

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the row, in order."""
        return self.one.cells * (self.workers * self.local)

    def decode(self, rows: Rows, steps: IntArray, counts: Mapping[int, IntArray]) -> Series:
        """Turn rows into single steps: those of this process's replicas, merged."""
        one, first = self.one, self.worker * self.local
        parts = [
            one.decode(
                self._apart(rows, axis=1)[first + place],
                steps,
                {row: self._apart(table)[first + place] for row, table in counts.items()},
            )
            for place in range(self.local)
        ]
        return self._with_skipped(merge_alike(parts), rows)

    def findings(self, counts: IntArray) -> tuple[Finding, ...]:
        """Return what was non-finite with the replica that was first."""
        which = self.first_bad(counts)
        return () if which is None else self.one.findings(self._apart(counts)[which])

    def first_bad(self, counts: IntArray) -> int | None:
        """Return the number of the replica, over all processes, whose findings come first in the flow of data."""
        found = enumerate(self.one.findings(table) for table in self._apart(counts))
        places = [(min(map(_place, findings)), which) for which, findings in found if findings]
        return min(places)[1] if places else None

    def first_bad_here(self, counts: IntArray) -> int | None:
        """Return the number in this process of the first bad replica; ``None`` where it is another process's."""
        which = self.first_bad(counts)
        return which % self.local if which is not None and which // self.local == self.worker else None

    def whose(self, counts: IntArray) -> tuple[int | None, int | None]:
        """Return the replica, within its process, and the process that :meth:`findings` are of, if there are more."""
        which = self.first_bad(counts)
        if which is None or all(finding.role in _OF_THE_STEP for finding in self.findings(counts)):
            return None, None
        return which % self.local if self.local > 1 else None, which // self.local if self.workers > 1 else None

    def _apart(self, together: Any, *, axis: int = 0) -> list[Any]:
        parts: list[Any] = np.split(together, self.workers * self.local, axis=axis)
        return parts

    def _with_skipped(self, series: Series, rows: Rows) -> Series:
        # A step is skipped by all replicas, whichever of them was bad.
        if not self.skips or ("skipped", "max") not in series.columns:
            return series
        bad = ~np.isfinite(rows).all(axis=1, keepdims=True)
        columns = dict(series.columns)
        values = ("min", "max", "mean")
        for key in [key for key in columns if key.stat == "skipped" and key.keeps in values]:
            columns[key] = np.where(bad, np.float32(1), columns[key])
        return replace(series, columns=columns)


def of_each_replica(found: Mapping[str, tf.Tensor], count: int) -> list[dict[str, tf.Tensor]]:
    """Tell apart what was written to the replicas' own variables, by their names, which end in the replica's number.

    Args:
        found: by name of the variable.
        count: how many replicas there are in this process.

    Returns:
        By replica, and by the name that the first replica's variable has.
    """
    apart: list[dict[str, tf.Tensor]] = [{} for _ in range(count)]
    for name, tensor in found.items():
        match = _OF_REPLICA.fullmatch(name)
        if match is None:
            apart[0][name] = tensor
        elif int(match[2]) < count:
            apart[int(match[2])][match[1]] = tensor
    return apart


def components(variables: Iterable[Any], place: int) -> list[Any]:
    """Return the variables of one replica behind those that all share."""
    inner = [variable if isinstance(variable, tf.Variable) else variable.value for variable in variables]
    return [getattr(variable, "values", (variable,) * (place + 1))[place] for variable in inner]


def _place(finding: Finding) -> int:
    return PHASES.index(place_of_role(finding.role, 0, first_step=0, before=0)[1])
