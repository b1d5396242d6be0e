"""The replicas of a step: each is measured by itself, and one row records all of them.

A row holds the cells of every replica, one replica after the other. Each process gathers the cells of the others, so
that all processes see the same row and take the same decision about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
import tensorflow as tf

from tb_nanwatch.diagnosis.sightings import place_of_role
from tb_nanwatch.numerics.spans import merge_alike
from tb_nanwatch.schema.records import PHASES, Finding, IntArray, Role, Series
from tb_nanwatch.watch.row.cells import Cell, Layout
from tb_nanwatch.watch.row.decoding import RowDecoder, names_with_intended_infinities
from tb_nanwatch.watch.row.encoding import Rows
from tb_nanwatch.watch.row.observation import ResolvedRow, StepObservation, is_overflow, without_update
from tb_nanwatch.watch.tf_internals import first_replica_number, regrouped

_OF_REPLICA: Final = re.compile(r"(.*)/replica_(\d+)")
_SHARED: Final[frozenset[Role]] = frozenset({"weight"})
"""The roles whose tensors are the same on every replica."""
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Replicas:
    """The replicas of a step and their devices.

    Attributes:
        strategy: that runs them.
        devices: of this process, one for each of its replicas.
        worker: number of this process, from 0.
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
        return cls(
            strategy,
            devices,
            first_replica_number(strategy) // len(devices),
            strategy.num_replicas_in_sync // len(devices),
        )

    @property
    def total(self) -> int:
        """How many replicas there are in all processes."""
        return self.workers * len(self.devices)

    @property
    def first(self) -> int:
        """The number, over all processes, of the first replica of this one."""
        return self.worker * len(self.devices)

    def decoder(self, layout: Layout) -> ReplicaDecoder:
        """Return what reads rows with the cells of all replicas, given the layout of one replica's cells."""
        return ReplicaDecoder(layout, workers=self.workers, worker=self.worker, local=len(self.devices))

    def gathered(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the tensors of all replicas of all processes, ``[total, ...]``.

        Args:
            tensors: one for each replica of this process, of one shape.
        """
        if self.workers == 1:
            return tf.stack(tensors)
        # Each process adds zeros in the place of the others: every kind of communication has a collective sum.
        padded = [self._among_zeros(tensor, self.first + place) for place, tensor in enumerate(tensors)]
        shares = regrouped(padded)
        summed = self.strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, shares, destinations=shares)
        together: tf.Tensor = self.strategy.experimental_local_results(summed)[0]
        return together

    def _among_zeros(self, tensor: tf.Tensor, place: int) -> tf.Tensor:
        around = [[place, self.total - place - 1], *[[0, 0]] * len(tensor.shape)]
        return tf.pad(tensor[tf.newaxis], around)


@dataclass(frozen=True, eq=False)
class ReplicasObservation:
    """The observation of a step that several replicas run; see :class:`~tb_nanwatch.watch.row.observation.Observation`.

    Attributes:
        replicas: of the step.
        parts: the observations of this process's replicas.
    """

    replicas: Replicas
    parts: Sequence[StepObservation]

    def row(self) -> tf.Tensor:
        """Return the row, float32 ``[total * cells]``."""
        return tf.reshape(self.replicas.gathered(self._on_each_device(StepObservation.row)), [-1])

    def resolve(self) -> ResolvedRow:
        """Return the row and the exact counts."""
        exact = self._on_each_device(StepObservation.resolve_cells)
        counts = self.replicas.gathered([counts for _, counts, _ in exact])
        rows = self.replicas.gathered([row for row, _, _ in exact])
        kinds, scale = exact[0][2], self.parts[0].tensors.scale
        resolved = ResolvedRow(tf.reshape(rows, [-1]), tf.reshape(counts, [-1, 4]), None)
        if scale is None:
            return resolved
        apart = self._apart(resolved.counts)
        overflows = [is_overflow(table, kinds, scale) for table in apart]
        is_fine = [
            overflow | (tf.reduce_sum(table[:, 1:]) == 0) for overflow, table in zip(overflows, apart, strict=True)
        ]
        resolved = resolved._replace(is_overflow=tf.reduce_any(overflows) & tf.reduce_all(is_fine))
        return resolved.without_overflow(
            lambda row: tf.concat([without_update(part, kinds) for part in self._apart(row)], axis=0)
        )

    def _apart(self, together: tf.Tensor) -> list[tf.Tensor]:
        parts: list[tf.Tensor] = tf.split(together, self.replicas.total)
        return parts

    def _on_each_device(self, observe: Callable[[StepObservation], _T]) -> list[_T]:
        results = []
        for part, device in zip(self.parts, self.replicas.devices, strict=True):
            with tf.device(device):
                results.append(observe(part))
        return results


@dataclass(frozen=True)
class ReplicaDecoder:
    """Reads rows with the cells of every replica; see :class:`~tb_nanwatch.watch.row.decoding.Decoder`.

    Attributes:
        layout: of one replica's cells.
        workers: how many processes there are.
        worker: number of this process.
        local: how many replicas each process has.
    """

    layout: Layout
    workers: int = 1
    worker: int = 0
    local: int = 1

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of a row, in order."""
        return self.layout.cells * (self.workers * self.local)

    def decode(self, rows: Rows, steps: IntArray, counts: Mapping[int, IntArray]) -> Series:
        """Return rows as single steps, in which this process's replicas are merged."""
        first = self.worker * self.local
        parts = [
            self._replica.decode(
                self._apart(rows, axis=1)[first + place],
                steps,
                {row: self._apart(table)[first + place] for row, table in counts.items()},
            )
            for place in range(self.local)
        ]
        return self._with_skipped(merge_alike(parts), rows)

    def findings(self, counts: IntArray) -> tuple[Finding, ...]:
        """Return what was non-finite on the first bad replica."""
        number = self._first_bad(counts)
        return () if number is None else self._replica.findings(self._apart(counts)[number])

    def first_bad_here(self, counts: IntArray) -> int | None:
        """Return the number in this process of the first bad replica; ``None`` if another process has it."""
        number = self._first_bad(counts)
        return number % self.local if number is not None and number // self.local == self.worker else None

    def origin_device(self, counts: IntArray) -> tuple[int | None, int | None]:
        """Return the replica, within its process, and the process of :meth:`findings`; ``None`` for an only one."""
        number = self._first_bad(counts)
        if number is None or all(finding.role in _SHARED for finding in self.findings(counts)):
            return None, None
        return number % self.local if self.local > 1 else None, number // self.local if self.workers > 1 else None

    def intended_infinities(self, rows: Rows) -> tuple[str, ...]:
        """Return the names of the tensors whose infinities were taken as intended, on any replica."""
        return names_with_intended_infinities(self.cells, rows)

    @property
    def _replica(self) -> RowDecoder:
        return RowDecoder(self.layout)

    def _first_bad(self, counts: IntArray) -> int | None:
        """Return the number, over all processes, of the replica whose findings come first in the flow of data."""
        found = enumerate(self._replica.findings(table) for table in self._apart(counts))
        places = [(min(map(_place, findings)), number) for number, findings in found if findings]
        return min(places)[1] if places else None

    def _apart(self, together: Any, *, axis: int = 0) -> list[Any]:
        parts: list[Any] = np.split(together, self.workers * self.local, axis=axis)
        return parts

    def _with_skipped(self, series: Series, rows: Rows) -> Series:
        # All replicas skip a step, whichever of them was bad.
        if not self.layout.skips or ("skipped", "max") not in series.columns:
            return series
        bad = ~np.isfinite(rows).all(axis=1, keepdims=True)
        columns = dict(series.columns)
        for key in [key for key in columns if key.stat == "skipped" and key.keeps in ("min", "max", "mean")]:
            columns[key] = np.where(bad, np.float32(1), columns[key])
        return replace(series, columns=columns)


def of_each_replica(found: Mapping[str, tf.Tensor], count: int) -> list[dict[str, tf.Tensor]]:
    """Sort what was written to the replicas' own variables by replica; their names end in the replica's number.

    Args:
        found: by name of the variable.
        count: how many replicas this process has.

    Returns:
        For each replica a dict, by the name of the first replica's variable.
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
    """Return one replica's own variables, given the variables that represent all replicas."""
    inner = [variable if isinstance(variable, tf.Variable) else variable.value for variable in variables]
    return [getattr(variable, "values", (variable,) * (place + 1))[place] for variable in inner]


def _place(finding: Finding) -> int:
    return PHASES.index(place_of_role(finding.role, 0, first_step=0, before=0)[1])
