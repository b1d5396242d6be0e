"""In which phase of the training step an operation works, and for which of its updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import tensorflow as tf

from tb_nanwatch.schema.records import Phase
from tb_nanwatch.watch.replay.flow import Place
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.probe import Node
from tb_nanwatch.watch.replay.trial import Given
from tb_nanwatch.watch.replay.walk import Visit

Stage = Literal["forward", "backward", "clip", "update", "state"]
Tensor = Any


@dataclass(frozen=True, eq=False)
class Phases:
    """Tells phases apart, by what the operations of a trial depend on.

    Attributes:
        names: of the trial's things.
        given: what the ``apply_gradients`` in question was given in it.
        is_loss_bad: whether the step's own loss was not finite: of a finite one nothing is said to be bad.
    """

    names: Names
    given: Given
    is_loss_bad: bool

    def of(self, visit: Visit, stage: Stage) -> Phase:
        """Return the phase of something bad.

        Args:
            visit: to it.
            stage: of what the walk that came to it began at.
        """
        if visit.node is None:
            return self._of_outside(visit)
        worked: Stage = "update" if self.update(visit) < len(self.given.earlier) else stage
        if self._is_data(visit.node, worked):
            return "input"
        if worked in ("update", "state"):
            return worked
        is_aside = stage == "forward" and not visit.node.creation.in_gradient
        if is_aside or visit.node.number in self._forward:
            return "loss" if self.is_loss_bad and not self._is_models(visit.node) else "forward"
        return "clip" if stage == "clip" and visit.node.number not in self._backward else "backward"

    def update(self, visit: Visit) -> int:
        """Return to which update of the step something bad belongs, counted from 0.

        What an earlier update made of finite gradients may be bad, and be read for a later one.
        """
        made = (
            place for place, numbers in enumerate(self.given.earlier) if visit.node and visit.node.number in numbers
        )
        return next(made, len(self.given.earlier))

    def _is_data(self, node: Node, stage: Stage) -> bool:
        """Return whether an operation only holds what the program brought; a constant of the update is a setting."""
        if node.op.type != "Const":
            return False
        return stage not in ("update", "state") or bool(self.names.numbers_in(node.op))

    def variable(self, visit: Visit, stage: Stage) -> int | None:
        """Return the place of the one variable whose gradient depends on an operation; ``None`` if of several it does.

        Args:
            visit: to an operation of the backward pass, or of clipping.
            stage: as for :meth:`of`.
        """
        if visit.node is None:
            return None
        reached = self._downstream(visit.node.number)
        flow = self.names.traced.flow
        # A variable of which there are micro-batches has several gradients.
        depending = {
            id(self.given.variables[place]): place
            for place, gradient in enumerate(self.given.clipped if stage == "clip" else self.given.raw)
            if gradient is not None and any(of.node and of.node.number in reached for of in flow.places(gradient))
        }
        return next(iter(depending.values())) if len(depending) == 1 else None

    def _of_outside(self, visit: Visit) -> Phase:
        handle = self.names.traced.fed[visit.outside.name]
        if handle.dtype != tf.resource:
            return "input"
        return "state" if self.names.column(handle) is None else "weights"

    def _is_models(self, node: Node) -> bool:
        if any(place.node is node for place in self._loss_itself):
            return False
        if node.creation.owner in ("layer", "loss"):
            return node.creation.owner == "layer"
        return node.number in self._model

    @cached_property
    def _forward(self) -> frozenset[int]:
        """The forward pass: all that the loss depends on, or where it is not given, all but gradients."""
        if self.given.losses:
            return self._upstream(self.given.losses)
        return frozenset(node.number for node in self.names.traced.flow.nodes if not node.creation.in_gradient)

    @cached_property
    def _loss_itself(self) -> list[Place]:
        return [place for loss in self.given.losses for place in self.names.traced.flow.places(loss)]

    @cached_property
    def _backward(self) -> frozenset[int]:
        return self._upstream([gradient for gradient in self.given.raw if gradient is not None])

    @cached_property
    def _model(self) -> frozenset[int]:
        """The model, as told from the loss: what uses a variable, or is watched, and all that comes before."""
        nodes = [node for node in self.names.traced.flow.nodes if node.number in self._forward]
        users = [node for node in nodes if node.creation.owner == "layer" or self.names.columns_used(node.op)]
        tensors = [tensor for node in users for tensor in node.op.inputs]
        return self._upstream([*tensors, *self.names.traced.trial.tensors.values()]) | {node.number for node in users}

    @cached_property
    def _users(self) -> dict[int, list[int]]:
        """By number, the numbers of the operations that use what an operation makes."""
        users: dict[int, list[int]] = {}
        for node in self.names.traced.flow.nodes:
            for source in self._sources(node):
                users.setdefault(source.number, []).append(node.number)
        return users

    def _sources(self, node: Node) -> Sequence[Node]:
        """Return what an operation depends on, other than by a variable that an earlier update has written."""
        sources = self.names.traced.flow.sources(node)
        return [one for one in sources if not any(one.number in numbers for numbers in self.given.earlier)]

    def _downstream(self, number: int) -> set[int]:
        found: set[int] = set()
        waiting = [number]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self._users.get(one, ())
        return found

    def _upstream(self, tensors: Sequence[Tensor]) -> frozenset[int]:
        flow = self.names.traced.flow
        found: set[int] = set()
        waiting = [place.node for tensor in tensors for place in flow.places(tensor) if place.node is not None]
        while waiting:
            node = waiting.pop()
            if node.number not in found:
                found.add(node.number)
                waiting += self._sources(node)
        return frozenset(found)
