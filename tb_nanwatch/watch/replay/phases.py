"""The phase of the training step in which an operation works, and the update that it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from tb_nanwatch.schema.records import Phase
from tb_nanwatch.watch.graphs import Op, Tensor
from tb_nanwatch.watch.replay.flow import Flow, Place
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.probe import Node
from tb_nanwatch.watch.replay.step_trace import Stage, TracedUpdate
from tb_nanwatch.watch.replay.walk import Visit


@dataclass(frozen=True, eq=False)
class Phases:
    """Finds the phase of an operation from what the loss and the gradients of an update depend on.

    Attributes:
        names: the names of the trace.
        update: the update in question.
        is_loss_bad: whether the step's own loss was non-finite. No operation of a finite loss is reported as bad.
        outside_step: the operations of the same run that are no part of the step and write a variable that it reads.
    """

    names: Names
    update: TracedUpdate
    is_loss_bad: bool
    outside_step: Collection[Op] = ()

    def phase_of(self, visit: Visit, stage: Stage) -> Phase:
        """Return the phase of a non-finite value.

        Args:
            visit: the walk's visit to it.
            stage: the stage of the tensor that the walk began at.
        """
        if visit.node is None:
            return self._phase_of_outside(visit.outside)
        if visit.node.op in self.outside_step:
            return "state"
        work: Stage = "update" if self.update_of(visit) < len(self.update.earlier) else stage
        if self._is_data(visit.node, work):
            return "input"
        if work in ("update", "state"):
            return work
        is_aside = stage == "forward" and not visit.node.creation.in_gradient
        if is_aside or visit.node.number in self._forward:
            return "loss" if self.is_loss_bad and not self._is_in_model(visit.node) else "forward"
        return "clip" if stage == "clip" and visit.node.number not in self._backward else "backward"

    def update_of(self, visit: Visit) -> int:
        """Return the number of the update that a non-finite value belongs to, counted from 0.

        An earlier update may make a non-finite value from finite gradients, and a later update may read it.
        """
        node = visit.node
        found = (place for place, numbers in enumerate(self.update.earlier) if node and node.number in numbers)
        return next(found, len(self.update.earlier))

    def place_of_variable(self, visit: Visit, stage: Stage) -> int | None:
        """Return the place of the only variable whose gradient depends on an operation; ``None`` if there are several.

        Args:
            visit: a visit to an operation of the backward pass or of clipping.
            stage: as in :meth:`phase_of`.
        """
        if visit.node is None:
            return None
        reached = self._downstream(visit.node.number)
        # A variable with several micro-batches has several gradients.
        depending = {
            id(self.update.variables[number]): number
            for number, gradient in enumerate(self.update.clipped if stage == "clip" else self.update.raw)
            if gradient is not None
            and any(place.node and place.node.number in reached for place in self._flow.places(gradient))
        }
        return next(iter(depending.values())) if len(depending) == 1 else None

    @property
    def _flow(self) -> Flow:
        return self.names.trace.flow

    def _phase_of_outside(self, outside: Tensor) -> Phase:
        if self.names.is_variable(outside):
            return "state" if self.names.column(outside) is None else "weights"
        inputs = self.names.trace.inputs
        return "backward" if inputs.arguments.get(outside.name) in inputs.gradients else "input"

    def _is_data(self, node: Node, stage: Stage) -> bool:
        """Return whether an operation only holds a value of the program. A constant of the update is a setting."""
        if node.op.type != "Const":
            return False
        return stage not in ("update", "state") or bool(self.names.numbers_in(node.op))

    def _is_in_model(self, node: Node) -> bool:
        if any(place.node is node for place in self._losses):
            return False
        if node.creation.owner in ("layer", "loss"):
            return node.creation.owner == "layer"
        return node.number in self._model

    @cached_property
    def _forward(self) -> frozenset[int]:
        """The forward pass: all that the loss depends on, or without a given loss, all outside of gradients."""
        if self.update.losses:
            return self._upstream(self.update.losses)
        return frozenset(node.number for node in self._flow.nodes if not node.creation.in_gradient)

    @cached_property
    def _losses(self) -> list[Place]:
        return [place for loss in self.update.losses for place in self._flow.places(loss)]

    @cached_property
    def _backward(self) -> frozenset[int]:
        return self._upstream([gradient for gradient in self.update.raw if gradient is not None])

    @cached_property
    def _model(self) -> frozenset[int]:
        """The model, as opposed to the loss: what uses a variable or is watched, and all before it."""
        nodes = [node for node in self._flow.nodes if node.number in self._forward]
        users = [node for node in nodes if node.creation.owner == "layer" or self.names.columns_used(node.op)]
        tensors = [tensor for node in users for tensor in node.op.inputs]
        watched = self.names.trace.tensors.values()
        return self._upstream([*tensors, *watched]) | {node.number for node in users}

    @cached_property
    def _users(self) -> dict[int, list[int]]:
        """By the number of an operation, the numbers of the operations that use its outputs."""
        users: dict[int, list[int]] = {}
        for node in self._flow.nodes:
            for source in self._sources(node):
                users.setdefault(source.number, []).append(node.number)
        return users

    def _sources(self, node: Node) -> Sequence[Node]:
        """Return the operations that an operation depends on, but not through a variable of an earlier update."""
        sources = self._flow.sources(node)
        return [source for source in sources if not any(source.number in numbers for numbers in self.update.earlier)]

    def _downstream(self, number: int) -> set[int]:
        found: set[int] = set()
        waiting = [number]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting += self._users.get(current, ())
        return found

    def _upstream(self, tensors: Sequence[Tensor]) -> frozenset[int]:
        found: set[int] = set()
        waiting = [place.node for tensor in tensors for place in self._flow.places(tensor) if place.node is not None]
        while waiting:
            node = waiting.pop()
            if node.number not in found:
                found.add(node.number)
                waiting += self._sources(node)
        return frozenset(found)
