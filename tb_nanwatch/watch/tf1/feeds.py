"""What a session is fed in a step: it stands for the step's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tb_nanwatch.watch.batch import Call
from tb_nanwatch.watch.tf1.graph import Graph, Tensor, ancestors, has_read, source_of


class FedCall(Call):
    """A run of a session as a call: its one argument is the feed, by name, as ``session.run`` takes it."""

    @classmethod
    def of(cls, graph: Graph, feed_dict: Mapping[Any, Any] | None) -> FedCall:
        """Return the call of a run.

        Args:
            graph: of the session.
            feed_dict: as the user gave it.
        """
        return cls(_session_run, (dict(_by_name(graph, feed_dict or {})),), {})

    def copied(self) -> FedCall:
        """Return the same with arrays of its own: the user may write over his when the run is over."""
        own = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in self.fed.items()}
        return FedCall(self.function, (own,), {})

    @property
    def fed(self) -> Mapping[str, Any]:
        """What is fed, by the name of the tensor it is fed for."""
        fed: Mapping[str, Any] = self.args[0]
        return fed

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Yield what is fed, with the name of its placeholder."""
        for name, value in self.fed.items():
            yield name_of_fed(name), np.asarray(value) if isinstance(value, list | tuple) else value


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
    sources = [source_of(variable) for variable in variables]
    of_loss = set() if loss is None else ancestors([loss])
    found: dict[str, int] = {}
    for place, gradient in enumerate(gradients):
        behind = ancestors([gradient])
        if not has_read(behind, sources):
            found.update({op.name: place for op in behind - of_loss if op.type.startswith("Placeholder")})
    return found


def _by_name(graph: Graph, feed_dict: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in feed_dict.items():
        if isinstance(key, tf.SparseTensor):
            parts = (key.indices, key.values, key.dense_shape)
            yield from ((part.name, given) for part, given in zip(parts, value, strict=True))
        else:
            yield graph.as_graph_element(key, allow_operation=False).name, value


def _session_run(feed_dict: Mapping[str, Any]) -> None:
    """Stand for ``session.run`` of a step, where a call is asked for its function."""
