"""What a session is fed in a step: it stands for the step's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import tensorflow as tf

from tb_nanwatch.schema.records import Finding
from tb_nanwatch.watch.drivers.session_v1.intake import Intake
from tb_nanwatch.watch.graphs import Graph, Tensor, ancestors
from tb_nanwatch.watch.record.batch import Call, Part
from tb_nanwatch.watch.variables import handle_of, is_used_by


@dataclass(frozen=True, eq=False)
class SessionRun:
    """Stands for ``session.run`` of a step, where a call is asked for its function.

    Attributes:
        had: see :attr:`FedCall.had`.
        taken: names of the tensors that are fed in a replay, and were not by the user.
        notes: what there is to say about the run; a sentence each.
    """

    had: Mapping[str, Any]
    taken: frozenset[str]
    notes: tuple[str, ...] = ()

    def __call__(self, feed_dict: Mapping[str, Any]) -> None:
        """Do nothing: a session is run by whoever has it."""


class FedCall(Call):
    """A run of a session as a call: its one argument is the feed, by name, as ``session.run`` takes it."""

    @classmethod
    def of(cls, graph: Graph, feed_dict: Mapping[Any, Any] | None) -> FedCall:
        """Return the call of a run.

        Args:
            graph: of the session.
            feed_dict: as the user gave it.
        """
        return cls(SessionRun({}, frozenset()), (dict(_by_name(graph, feed_dict or {})),), {})

    def copied(self) -> FedCall:
        """Return the same with arrays of its own: the user may write over his when the run is over."""
        own = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in self.fed.items()}
        return FedCall(self.function, (own,), {})

    def entered(self, values: Mapping[str, Any], intake: Intake) -> FedCall:
        """Return the same with what entered the run besides the feed.

        Args:
            values: by name of the tensor.
            intake: that they are of; elements of an iterator or a queue are fed like the batch that they are.
        """
        batch = intake.batch(values)
        others = {name: value for name, value in values.items() if name not in batch}
        return FedCall(SessionRun(others, frozenset(batch)), ({**self.fed, **batch},), {})

    def noting(self, notes: tuple[str, ...]) -> FedCall:
        """Return the same with something to say about the run."""
        return FedCall(replace(self._run, notes=notes), self.args, {})

    def having(self, values: Mapping[str, Any]) -> FedCall:
        """Return the same with other values for some of what the run drew, was given or read."""
        return FedCall(replace(self._run, had={**self.had, **values}), self.args, {})

    @property
    def _run(self) -> SessionRun:
        return cast("SessionRun", self.function)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the run; a sentence each."""
        return self._run.notes

    @property
    def fed(self) -> Mapping[str, Any]:
        """What is fed, by the name of the tensor it is fed for."""
        fed: Mapping[str, Any] = self.args[0]
        return fed

    @property
    def had(self) -> Mapping[str, Any]:
        """What the run drew, was given by Python, or read of variables, by name of the tensor."""
        return self._run.had

    def findings(self) -> tuple[Finding, ...]:
        """Return what the user fed that holds anything non-finite.

        Of an element of an iterator that is known only for a bad step: it may be so in each, and do no harm.
        """
        taken = {name_of_fed(name) for name in self._run.taken}
        return tuple(found for found in super().findings() if found.name not in taken)

    def _arrays(self) -> Iterator[tuple[str, Part]]:
        rows = {name_of_fed(name): samples for name, samples in rows_of_sparse(self.fed).items()}
        yield from ((name, part._replace(rows=rows.get(name))) for name, part in super()._arrays())

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield what is fed, with the name of its placeholder."""
        for name, value in self.fed.items():
            yield name_of_fed(name), np.asarray(value) if isinstance(value, list | tuple) else value


def rows_of_sparse(fed: Mapping[str, Any]) -> dict[str, Any]:
    """Return, by the name of a sparse placeholder's values, the row of the dense tensor that each value stands in."""
    rows = {}
    for name, values in fed.items():
        base, is_values, _ = name.rpartition("/values:0")
        indices = np.asarray(fed.get(f"{base}/indices:0", ()) if is_values else ())
        if indices.ndim == 2 and len(indices) == len(values):
            rows[name] = indices[:, 0]
    return rows


def name_of_fed(name: str) -> str:
    """Return what a fed tensor is called: its placeholder's name.

    Example:
        >>> name_of_fed("inputs/x:0")
        'inputs/x'
    """
    return name.removesuffix(":0")


def fed_gradients(gradients: Sequence[Tensor], loss: Tensor | None, variables: Sequence[Any]) -> dict[str, int]:
    """Return which placeholders bring a gradient that was taken in another run, and of which variable.

    Those are a gradient's whose way to here passes by no variable. Fed with something bad they are no bad batch: the
    backward pass that they are from was bad.

    Args:
        gradients: before clipping.
        loss: ``None`` if it is not given.
        variables: that they are of.

    Returns:
        By name of the placeholder, the place among the variables.
    """
    sources = [handle_of(variable) for variable in variables]
    of_loss = set() if loss is None else ancestors([loss])
    found: dict[str, int] = {}
    for place, gradient in enumerate(gradients):
        behind = ancestors([gradient])
        if not is_used_by(behind, sources):
            found.update({op.name: place for op in behind - of_loss if op.type.startswith("Placeholder")})
    return found


def _by_name(graph: Graph, feed_dict: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in feed_dict.items():
        if isinstance(key, tf.SparseTensor):
            parts = (key.indices, key.values, key.dense_shape)
            yield from ((part.name, given) for part, given in zip(parts, value, strict=True))
        else:
            yield graph.as_graph_element(key, allow_operation=False).name, value
