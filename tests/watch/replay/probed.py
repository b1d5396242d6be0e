"""A small function, traced with a probe as a replay traces a step, and run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.record.draws import NO_DRAWS, DrawFeed
from tb_nanwatch.watch.replay.flow import Flow, Place
from tb_nanwatch.watch.replay.instrument import Instrument
from tb_nanwatch.watch.replay.probe import Node, Probe
from tb_nanwatch.watch.replay.tracing import TracedFunction, trace
from tb_nanwatch.watch.replay.trial import Trial
from tb_nanwatch.watch.replay.walk import Visit, Walk
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.variables import dtype_of


@dataclass(frozen=True)
class Probed:
    """A traced function.

    Attributes:
        traced: its graph.
        results: the tensors that it returned.
    """

    traced: TracedFunction
    results: Sequence[tf.Tensor]

    @property
    def flow(self) -> Flow:
        return self.traced.flow

    def arguments(self) -> list[str]:
        """Return the names of the placeholders of its arguments, in order."""
        return list(self.traced.values)

    def ops(self, kind: str) -> list[Any]:
        """Return the operations of a type in all its graphs, in order of creation, without those of the probe."""
        ops = [op for graph in self.flow.graphs for op in graph.get_operations() if op.type == kind]
        return [op for op in ops if not op.name.rpartition("/")[0].endswith("nanwatch")]

    def op(self, kind: str) -> Any:
        """Return its only operation of a type."""
        (op,) = self.ops(kind)
        return op

    def node(self, kind: str) -> Node:
        """Return the node of its only operation of a type."""
        node = self.flow.node_of(self.op(kind))
        assert node is not None
        return node

    def made_by(self, tensor: tf.Tensor) -> list[str]:
        """Return the types of the operations that a tensor may come from.

        TensorFlow puts an identity on each output of a branch, a loop or a function. This method goes past it.
        """
        found: list[str] = []
        for place in self.flow.places(tensor):
            if place.node is not None and place.node.op.type == "Identity":
                found += self.made_by(place.node.op.inputs[0])
            else:
                found += kinds([place])
        return found

    def given(self, kind: str) -> list[str]:
        """Return the types of the operations that the inputs of its only operation of a type may come from."""
        return [made for tensor in self.op(kind).inputs for made in self.made_by(tensor)]

    def value(self, placeholder: tf.Tensor) -> np.ndarray:
        """Return what a placeholder of the root graph stands for."""
        value = self.traced.fed[placeholder.name]
        if value.dtype == tf.resource:
            value = tf.raw_ops.ReadVariableOp(resource=value, dtype=dtype_of(value))
        return np.asarray(value)

    def walk(self) -> Walk:
        """Run the function and return a walk that has not begun."""
        self.traced.run(self.results)
        return Walk(self.flow, lambda placeholder: not np.isfinite(self.value(placeholder)).all(), self.value)


def probed(function: Callable[..., Any], *arguments: Any) -> Probed:
    """Trace a function; it is not run yet."""
    trial = Trial(watch=None)
    results: list[tf.Tensor] = []

    def step(*leaves: tf.Tensor) -> None:
        results.extend(tf.nest.flatten(function(*leaves)))
        trial.apply(StepInputs([], [], None, None), lambda pairs: None)

    instrument = Instrument(Probe(time_limit_s=60.0), DrawFeed(NO_DRAWS))
    leaves = [tf.constant(value) for value in arguments]
    return Probed(trace(step, leaves, trial=trial, instrument=instrument), results)


def kinds(found: Sequence[Visit | Place]) -> list[str]:
    """Return the types of some operations; of a value from outside the step, ``outside``."""
    return ["outside" if place.node is None else place.node.op.type for place in found]
