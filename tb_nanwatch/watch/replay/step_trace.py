"""What a replay needs of a bad step, however the step is traced and run: one protocol for all ways to train."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol

import tensorflow as tf

from tb_nanwatch.schema.records import Link, Variable
from tb_nanwatch.watch.graphs import Op, Tensor
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.probe import Node
from tb_nanwatch.watch.replay.walk import Walk

Stage = Literal["forward", "backward", "clip", "update", "state"]
Stages = Sequence[tuple[Stage, Sequence[Tensor]]]
"""The tensors that may be non-finite, by stage of the step, in order of data flow."""
Chains = tuple[tuple[Link, ...], ...]


_NOT_REPEATABLE: Final = ("Iterator", "OptionalGetNext", "Queue", "Collective", "Xla", "Stage", "Barrier")
"""How the types of operations begin that would take or give something that cannot be restored."""


class CannotReplayError(Exception):
    """A step cannot run again. The message gives the reason as the rest of a sentence."""


def check_repeatable(operations: Iterable[Op]) -> None:
    """Raise an error if an operation would take or give something that cannot be restored.

    Raises:
        CannotReplayError: if there is such an operation.
    """
    for kind in sorted({op.type for op in operations}):
        if kind.startswith(_NOT_REPEATABLE):
            raise CannotReplayError(f"it runs {kind}, which would return other values in a second run")


def expired(seconds: float) -> CannotReplayError:
    """Return the error of a replay that exceeded its time limit."""
    return CannotReplayError(f"it took longer than {seconds:g} seconds and was stopped")


@dataclass(frozen=True, eq=False)
class TracedUpdate:
    """One update of a traced step: what ``apply_gradients`` was given, and what it wrote where that is traced.

    Attributes:
        losses: the losses that were given.
        raw: the gradients before clipping; ``None`` for a variable without one.
        clipped: the gradients after clipping.
        variables: the variables that the gradients belong to.
        tensors: the tensors that the program watches and named after the update before this one.
        updated: each variable as the update left it, where that is traced.
        state: what the forward pass wrote to layers' statistics, where that is in question.
        earlier: for each earlier update of the step, the numbers of the operations that it made.
    """

    losses: Sequence[tf.Tensor]
    raw: Sequence[tf.Tensor | None]
    clipped: Sequence[tf.Tensor | None]
    variables: Sequence[Any]
    tensors: Sequence[tf.Tensor] = ()
    updated: Sequence[tf.Tensor] = ()
    state: Sequence[tf.Tensor] = ()
    earlier: Sequence[range] = ()

    def joined(self, other: TracedUpdate) -> TracedUpdate:
        """Return both as one update: the inputs of both, and what the other wrote."""
        return replace(
            other,
            losses=[*self.losses, *other.losses],
            raw=[*self.raw, *other.raw],
            clipped=[*self.clipped, *other.clipped],
            variables=[*self.variables, *other.variables],
        )


@dataclass(frozen=True, eq=False)
class NamedInputs:
    """The names of what a traced step was given.

    Attributes:
        arguments: the name of each argument, by the name of its placeholder.
        shapes: the shapes of the arguments that have a known rank.
        rows: by the name of its placeholder, the samples that the values of a sparse or ragged argument belong to.
        numbers: by name, the arguments that are NaN or Inf as a Python number: they are constants in the graph.
        gradients: by name, the arguments that bring a gradient from another run, with the place of its variable.
    """

    arguments: Mapping[str, str]
    shapes: Sequence[Sequence[int]]
    rows: Mapping[str, Any]
    numbers: Mapping[str, float] = field(default_factory=dict)
    gradients: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Watched:
    """The watched variables of a step.

    Attributes:
        variables: in column order.
        described: what the header says of each.
        owners: where layers and variables stand in the user's models.
    """

    variables: Sequence[Any]
    described: Sequence[Variable]
    owners: Owners


class StepTrace(Protocol):
    """A bad step as a graph that can run again.

    Its flow is complete before it runs. The names of values from outside are asked for by their outside tensor, see
    :class:`~tb_nanwatch.watch.replay.flow.Place`.
    """

    @property
    def flow(self) -> Flow:
        """The data flow between the operations that report."""

    @property
    def updates(self) -> Sequence[TracedUpdate]:
        """The updates of the step, in order."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors that the program watches, by name."""

    @property
    def inputs(self) -> NamedInputs:
        """The names of what the step was given."""

    @property
    def watched(self) -> Watched:
        """The watched variables."""

    def stages(self, update: TracedUpdate) -> Stages:
        """Return the tensors of an update that are in question."""

    def run(self, sinks: Sequence[Tensor]) -> tf.errors.OpError | None:
        """Run as much of the step as some tensors need, and restore every variable that it writes.

        Args:
            sinks: the tensors in question.

        Returns:
            The error that ended the replay, if it is of the kind that ended the step.

        Raises:
            CannotReplayError: if the step cannot run again, or took too long.
        """

    def written_outside(self) -> tuple[Mapping[str, Sequence[Node]], Collection[Op]]:
        """Return the operations of the same run that are no part of the step.

        Returns:
            By the name of a variable's outside tensor, those that wrote a non-finite value to it; and all of them.
        """

    def value(self, outside: Tensor) -> Any:
        """Return the value of an argument, a captured tensor or a variable."""

    def is_bad(self, outside: Tensor) -> bool:
        """Return whether a value from outside was non-finite as the step began."""

    def variable_key(self, outside: Tensor) -> Hashable | None:
        """Return what identifies the variable behind an outside tensor; ``None`` if it is no variable."""

    def key_of(self, variable: Any) -> Hashable:
        """Return what identifies a variable, as :meth:`variable_key` does."""

    def variable_name(self, outside: Tensor) -> str | None:
        """Return the name of a variable that is not watched."""

    def variable_behind(self, tensor: Tensor, passing: frozenset[str]) -> Tensor | None:
        """Return the outside tensor of the variable that a tensor was read from.

        Args:
            tensor: an input of an operation.
            passing: the types of operations that may stand between the variable and the tensor.

        Returns:
            ``None`` if the tensor was not read from a variable.
        """

    def name_of_constant(self, op: Op) -> str | None:
        """Return the program's name for the data of a constant."""

    def name_of_captured(self, outside: Tensor) -> str | None:
        """Return the program's name for a captured tensor."""

    def scope(self, op: Op, layers: Collection[str | None]) -> str | None:
        """Return the name scopes of an operation that the program opened.

        Args:
            op: the operation.
            layers: the layers that own a watched variable.
        """

    def hides_operations(self, op: Op) -> bool:
        """Return whether an operation is a loop or a function whose inside does not report."""

    def accepted(self, chains: Chains, walk: Walk) -> Chains:
        """Return the chains that may be reported; all of them, unless the trace knows that some are wrong."""

    def notes_on_found(self, chains: Chains, walk: Walk) -> Iterator[str]:
        """Yield the notes on chains that were found."""

    def notes_on_finite(self) -> Iterator[str]:
        """Yield the reasons why a value may have stayed finite in the replay."""
