"""The trial: a step that is traced again only to be looked at.

While one is on, ``Watch.apply_gradients`` notes what it was given instead of guarding it, and applies nothing unless
the update itself is in question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import tensorflow as tf

from tb_nanwatch.watch.graph import handle_of
from tb_nanwatch.watch.inputs import StepInputs
from tb_nanwatch.watch.measure import dense_values
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.replay.settled import settled_reads
from tb_nanwatch.watch.state import written_statistics

Scope = Literal["gradients", "state", "whole step", "last update"]
_current: ContextVar[Trial | None] = ContextVar("nanwatch_trial", default=None)


@dataclass(frozen=True, eq=False)
class Given:
    """What ``apply_gradients`` was given, of all optimizers of the step.

    Attributes:
        losses: that were given.
        raw: gradients before clipping; ``None`` for a variable without one.
        clipped: after it.
        variables: that they are of.
    """

    losses: Sequence[tf.Tensor]
    raw: Sequence[tf.Tensor | None]
    clipped: Sequence[tf.Tensor | None]
    variables: Sequence[Any]

    def joined(self, other: Given) -> Given:
        """Return both together."""
        return Given(
            [*self.losses, *other.losses],
            [*self.raw, *other.raw],
            [*self.clipped, *other.clipped],
            [*self.variables, *other.variables],
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
        given: ``None`` until ``apply_gradients`` is reached.
        microbatches: what ``accumulate`` was given; ``None`` if it was not reached.
        tensors: watched tensors, by name.
        graph: that ``apply_gradients`` was called in.
        state: what the forward pass wrote to layers' statistics, where that is in question.
        updated: each variable as the update left it, where that is traced.
    """

    watch: object
    scope: Scope = "gradients"
    sizes: Mapping[int, float] = field(default_factory=dict)
    has_several: bool = False
    are_slots_bad_before: bool = False
    given: Given | None = None
    microbatches: Given | None = None
    tensors: dict[str, tf.Tensor] = field(default_factory=dict)
    graph: Any = None
    state: Sequence[tf.Tensor] = ()
    updated: Sequence[tf.Tensor] = ()

    @property
    def whole(self) -> Given | None:
        """All that the watch was given in the step; ``None`` where it was given nothing."""
        if self.given is None or self.microbatches is None:
            return self.given or self.microbatches
        return self.microbatches.joined(self.given)

    def apply(self, inputs: StepInputs, update: Callable[[Sequence[tuple[Any, Any]]], Any]) -> None:
        """Note what the step would have applied, and trace the update where that is in question.

        Args:
            inputs: what ``apply_gradients`` was given.
            update: applies pairs of gradient and variable.
        """
        if self.given is not None and not self.has_several:
            return
        clipped = [dense_values(gradient) for gradient, _ in inputs.pairs]
        raw = clipped if inputs.raw is None else [dense_values(gradient) for gradient in inputs.raw]
        variables = [variable for _, variable in inputs.pairs]
        given = Given([] if inputs.loss is None else [inputs.loss], raw, clipped, variables)
        self.given = given if self.given is None else self.given.joined(given)
        self.graph = tf.compat.v1.get_default_graph()
        if self.scope in ("state", "whole step"):
            described = describe(variables, [None] * len(variables))
            self.state = [*self.state, *written_statistics(self.graph, variables, described).values()]
        if self.scope == "whole step" or (self.has_several and self.scope != "last update"):
            update(inputs.pairs)
        elif self.scope == "last update":
            with settled_reads(variables, are_slots_bad_before=self.are_slots_bad_before):
                update([(self._stand_in(variable), variable) for variable in variables])
        if self.scope in ("whole step", "last update"):
            self.updated = [*self.updated, *(tf.identity(variable) for variable in variables)]

    def accumulate(self, inputs: StepInputs) -> None:
        """Note a micro-batch of the step."""
        gradients = [dense_values(gradient) for gradient, _ in inputs.pairs]
        given = Given([] if inputs.loss is None else [inputs.loss], gradients, gradients, inputs.variables)
        self.microbatches = given if self.microbatches is None else self.microbatches.joined(given)
        if self.given is None:
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
