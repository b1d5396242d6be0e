"""The trial: a step that is traced again only to be looked at.

While one is on, ``Watch.apply_gradients`` notes what it was given instead of guarding it, and applies nothing unless
the update itself is in question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import tensorflow as tf

from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.replay.settled import settled_reads
from tb_nanwatch.watch.row.infinities import InitialInfinities
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import dense_values
from tb_nanwatch.watch.row.tensors import written_statistics
from tb_nanwatch.watch.variables import handle_of

Scope = Literal["gradients", "state", "whole step", "last update"]
_current: ContextVar[Trial | None] = ContextVar("nanwatch_trial", default=None)


@dataclass(frozen=True, eq=False)
class Given:
    """What one ``apply_gradients`` of the step was given, and what it made where that is traced.

    Attributes:
        losses: that were given.
        raw: gradients before clipping; ``None`` for a variable without one.
        clipped: after it.
        variables: that they are of.
        tensors: that the program watches, named since the update before this one.
        updated: each variable as the update left it, where that is traced.
        state: what the forward pass wrote to layers' statistics, where that is in question.
        earlier: for each update before this one in the step, the numbers of the operations that it made.
    """

    losses: Sequence[tf.Tensor]
    raw: Sequence[tf.Tensor | None]
    clipped: Sequence[tf.Tensor | None]
    variables: Sequence[Any]
    tensors: Sequence[tf.Tensor] = ()
    updated: Sequence[tf.Tensor] = ()
    state: Sequence[tf.Tensor] = ()
    earlier: Sequence[range] = ()

    def joined(self, other: Given) -> Given:
        """Return both together, with what the other one made, as the update that the other one is."""
        return replace(
            other,
            losses=[*self.losses, *other.losses],
            raw=[*self.raw, *other.raw],
            clipped=[*self.clipped, *other.clipped],
            variables=[*self.variables, *other.variables],
        )


@dataclass(eq=False)
class Trial:
    """What a traced trial has shown of its step so far.

    Attributes:
        watch: whose step is tried; what others do in it runs unwatched.
        scope: how much is in question: all up to the gradients; the statistics of layers as well; all; or the update of
            the step before, of whose gradients nothing is left, from the slots that it left.
        sizes: of a gradient's elements in the step before, by the id of the variable's handle; 1 for any other.
        has_several: whether the step has several optimizers: the second is given what the first has left.
        are_slots_bad_before: whether slots that the update of the step before left bad were bad before it.
        owners: where layers and variables stand in the user's models.
        updates: what each ``apply_gradients`` that was reached was given, in the order of the step.
        microbatches: what ``accumulate`` was given; ``None`` if it was not reached.
        tensors: watched tensors, by name.
        graph: that ``apply_gradients`` was called in.
        count_operations: returns how many operations of the trial were instrumented so far.
    """

    watch: object
    scope: Scope = "gradients"
    sizes: Mapping[int, float] = field(default_factory=dict)
    has_several: bool = False
    are_slots_bad_before: bool = False
    owners: Owners = field(default_factory=Owners)
    updates: list[Given] = field(default_factory=list)
    microbatches: Given | None = None
    tensors: dict[str, tf.Tensor] = field(default_factory=dict)
    graph: Any = None
    count_operations: Callable[[], int] = int
    _earlier: list[range] = field(default_factory=list)

    @property
    def given(self) -> Sequence[Given]:
        """What the watch was given for each update of the step; micro-batches belong to the first."""
        if self.microbatches is None:
            return self.updates
        if not self.updates:
            return [replace(self.microbatches, tensors=list(self.tensors.values()))]
        return [self.microbatches.joined(self.updates[0]), *self.updates[1:]]

    def apply(self, inputs: StepInputs, update: Callable[[Sequence[tuple[Any, Any]]], Any]) -> None:
        """Note what the step would have applied, and trace the update where that is in question.

        Args:
            inputs: what ``apply_gradients`` was given.
            update: applies pairs of gradient and variable.
        """
        if self.updates and not self.has_several:
            return
        clipped = [dense_values(gradient) for gradient, _ in inputs.pairs]
        raw = clipped if inputs.raw is None else [dense_values(gradient) for gradient in inputs.raw]
        self.graph = tf.compat.v1.get_default_graph()
        known = sum(len(given.tensors) for given in self.updates)
        given = Given(
            [] if inputs.loss is None else [inputs.loss],
            raw,
            clipped,
            inputs.variables,
            tensors=list(self.tensors.values())[known:],
            state=self._state(inputs.variables, [inputs.loss, *raw]),
            earlier=tuple(self._earlier),
        )
        first = self.count_operations()
        updated = self._update(inputs, update)
        self._earlier.append(range(first, self.count_operations()))
        self.updates.append(replace(given, updated=updated))

    def _state(self, variables: Sequence[Any], results: Sequence[tf.Tensor | None]) -> Sequence[tf.Tensor]:
        if self.scope not in ("state", "whole step"):
            return ()
        described = describe(variables, [None] * len(variables), self.owners)
        known = [tensor for tensor in results if tensor is not None]
        found = written_statistics(
            self.graph, variables, described, results=known, owners=self.owners, infinities=InitialInfinities()
        )
        return list(found.values())

    def _update(self, inputs: StepInputs, update: Callable[[Sequence[tuple[Any, Any]]], Any]) -> Sequence[tf.Tensor]:
        """Trace an update where it is in question, or a later one reads what it writes; return what it leaves."""
        variables = inputs.variables
        if self.scope == "last update":
            with settled_reads(variables, are_slots_bad_before=self.are_slots_bad_before):
                update([(self._stand_in(variable), variable) for variable in variables])
        elif self.scope == "whole step" or self.has_several:
            update(inputs.pairs)
        is_in_question = self.scope in ("whole step", "last update")
        return [tf.identity(variable) for variable in variables] if is_in_question else ()

    def accumulate(self, inputs: StepInputs) -> None:
        """Note a micro-batch of the step."""
        gradients = [dense_values(gradient) for gradient, _ in inputs.pairs]
        given = Given([] if inputs.loss is None else [inputs.loss], gradients, gradients, inputs.variables)
        self.microbatches = given if self.microbatches is None else self.microbatches.joined(given)
        if not self.updates:
            self.graph = tf.compat.v1.get_default_graph()

    def _stand_in(self, variable: Any) -> tf.Tensor:
        value = tf.convert_to_tensor(variable)
        return tf.fill(tf.shape(value), tf.cast(self.sizes.get(id(handle_of(variable)), 1.0), value.dtype))

    @contextmanager
    def on(self) -> Iterator[Trial]:
        """Be the current trial."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


def current_trial() -> Trial | None:
    """Return the trial that is being traced in this thread, if any."""
    return _current.get()
