"""The trial: the mode in which a step is traced again only for a replay.

During a trial, ``Watch.apply_gradients`` notes what it was given instead of guarding it. It applies nothing unless the
update itself is in question.
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
from tb_nanwatch.watch.replay.last_update import slots_from_before
from tb_nanwatch.watch.replay.step_trace import TracedUpdate
from tb_nanwatch.watch.row.infinities import InitialInfinities
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import dense_values
from tb_nanwatch.watch.row.tensors import written_statistics
from tb_nanwatch.watch.variables import handle_of

Scope = Literal["gradients", "state", "whole step", "last update"]
_current: ContextVar[Trial | None] = ContextVar("nanwatch_trial", default=None)


@dataclass(eq=False)
class Trial:
    """What a traced trial has noted of its step so far.

    Attributes:
        watch: the watch whose step is traced. Updates of another watch run unwatched.
        scope: how much is in question: all up to the gradients; the statistics of layers too; the whole step; or the
            update of the step before. Of that update the gradients are gone, and only the optimizer's slots are left.
        sizes: the size of a gradient's elements in the step before, by the id of the variable's handle; 1 by default.
        has_several: whether the step has several optimizers. The second one reads what the first has written.
        are_slots_bad_before: whether slots that the update of the step before left bad were bad before it.
        owners: where layers and variables stand in the user's models.
        updates: the noted updates, in the order of the step.
        microbatches: what ``accumulate`` was given; ``None`` if it was not reached.
        tensors: the tensors that the program watches, by name.
        graph: the graph in which ``apply_gradients`` was called.
        count_operations: returns how many operations of the trial report so far.
    """

    watch: object
    scope: Scope = "gradients"
    sizes: Mapping[int, float] = field(default_factory=dict)
    has_several: bool = False
    are_slots_bad_before: bool = False
    owners: Owners = field(default_factory=Owners)
    updates: list[TracedUpdate] = field(default_factory=list)
    microbatches: TracedUpdate | None = None
    tensors: dict[str, tf.Tensor] = field(default_factory=dict)
    graph: Any = None
    count_operations: Callable[[], int] = int
    _earlier: list[range] = field(default_factory=list)

    @property
    def step_updates(self) -> Sequence[TracedUpdate]:
        """The updates of the step, in order. The micro-batches belong to the first."""
        if self.microbatches is None:
            return self.updates
        if not self.updates:
            return [replace(self.microbatches, tensors=list(self.tensors.values()))]
        return [self.microbatches.joined(self.updates[0]), *self.updates[1:]]

    def apply(self, inputs: StepInputs, update: Callable[[Sequence[tuple[Any, Any]]], Any]) -> None:
        """Note what the step would have applied, and trace the update if it is in question.

        Args:
            inputs: what ``apply_gradients`` was given.
            update: applies pairs of gradient and variable.
        """
        if self.updates and not self.has_several:
            return
        clipped = [dense_values(gradient) for gradient, _ in inputs.pairs]
        raw = clipped if inputs.raw is None else [dense_values(gradient) for gradient in inputs.raw]
        self.graph = tf.compat.v1.get_default_graph()
        known = sum(len(earlier.tensors) for earlier in self.updates)
        noted = TracedUpdate(
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
        self.updates.append(replace(noted, updated=updated))

    def accumulate(self, inputs: StepInputs) -> None:
        """Note a micro-batch of the step."""
        gradients = [dense_values(gradient) for gradient, _ in inputs.pairs]
        noted = TracedUpdate([] if inputs.loss is None else [inputs.loss], gradients, gradients, inputs.variables)
        self.microbatches = noted if self.microbatches is None else self.microbatches.joined(noted)
        if not self.updates:
            self.graph = tf.compat.v1.get_default_graph()

    def note_tensor(self, name: str, tensor: tf.Tensor) -> None:
        """Note a tensor that the program watches."""
        self.tensors[name] = tensor

    @contextmanager
    def active(self) -> Iterator[Trial]:
        """Make this the current trial of the thread."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

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
        """Trace an update if it is in question, or if a later one reads what it writes; return what it leaves."""
        variables = inputs.variables
        if self.scope == "last update":
            with slots_from_before(variables, are_bad_before=self.are_slots_bad_before):
                update([(self._stand_in_gradient(variable), variable) for variable in variables])
        elif self.scope == "whole step" or self.has_several:
            update(inputs.pairs)
        is_in_question = self.scope in ("whole step", "last update")
        return [tf.identity(variable) for variable in variables] if is_in_question else ()

    def _stand_in_gradient(self, variable: Any) -> tf.Tensor:
        value = tf.convert_to_tensor(variable)
        return tf.fill(tf.shape(value), tf.cast(self.sizes.get(id(handle_of(variable)), 1.0), value.dtype))


def current_trial() -> Trial | None:
    """Return the trial that this thread traces; ``None`` if it traces none."""
    return _current.get()
