"""The scalars that an update multiplies by, known before it runs: learning rate, momentum, weight decay.

A non-finite scalar makes every variable non-finite, and it does not depend on the gradients. So after an update is
traced, a search finds the scalars in its graph, and the guard waits for them. Scalars of a branch are computed a second
time outside of it, which takes a few operations on single numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.graphs import Graph, Op, Tensor
from tb_nanwatch.watch.tf_internals import (
    copy_operation,
    has_context,
    inner_graphs,
    is_reference,
    run_independently,
    set_input,
)
from tb_nanwatch.watch.variables import REFERENCES, key_of, writes

_FACTORS: Final = {"Mul": (0, 1), "AddV2": (0, 1), "Add": (0, 1), "Sub": (0, 1), "RealDiv": (0,), "Div": (0,)}
"""By operation, the indices of operands that make the result non-finite if they are: a divisor does not."""
_ASSIGNS: Final = frozenset({"AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp"})
_FUSED: Final = ("ResourceApply", "Apply", "ResourceSparseApply", "SparseApply")
_RATES: Final = frozenset({"alpha", "lr", "momentum"})
"""The names of a fused operation's arguments that it multiplies by."""
_READS: Final = frozenset({"ReadVariableOp"})
_GIVEN: Final = frozenset({"Const", "Placeholder", "PlaceholderWithDefault"})
_MOST_OPERATIONS: Final = 400
"""The most operations that compute a scalar; a longer computation is no schedule."""

Place = tuple[int, str]


class UpdateScalars:
    """The scalars of one update, as one number that is finite if and only if all of them are.

    The row contains the number before the update is traced. The number gets its value afterwards.

    Attributes:
        cell: the number, float32 scalar.
        found: the scalars, after the update is traced.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        """Begin with the scalars that are known before the update.

        Args:
            known: floating scalars of an eager step.
        """
        self.cell = tf.identity(_together(known))
        self.found: Sequence[Tensor] = ()

    def fill(
        self,
        operations: Sequence[Op],
        written: set[Any],
        *,
        gradients: Sequence[Tensor],
        is_branch: bool = False,
        is_scaled: bool = False,
    ) -> set[Op]:
        """Find the scalars that an update uses, and make the number of them.

        Args:
            operations: of the update, in the graph of the number.
            is_branch: whether the update is the first branch of the conditional among them, which the guard decides on.
            is_scaled: whether the owner of a loss scale leaves out the update if the scaled gradients overflow. The
                guard knows that condition.
            written: keys, see :func:`~tb_nanwatch.watch.variables.key_of`, of variables whose value may change before
                or during the update: the trained variables, and those that the step assigns before it.
            gradients: of the update. No tensor that depends on them is known before it.

        Returns:
            The operations of the update that the number depends on.
        """
        search = _Search(self.cell.graph, operations, written, gradients=gradients)
        # The user may make the update wait for operations. The scalars do not wait for them.
        with self.cell.graph.as_default(), self.cell.graph.control_dependencies(None):
            self.found = search.scalars(is_branch=is_branch, is_scaled=is_scaled)
            if self.found:
                set_input(self.cell.op, 0, _together(self.found))
        return search.used


def _together(scalars: Sequence[Tensor]) -> Tensor:
    """Return a float32 scalar that is finite if and only if all scalars are; 0 if there are none."""
    single = [_in_float32(scalar) for scalar in scalars]
    if len(single) < 2:
        return single[0] if single else tf.constant(0.0)
    return tf.add_n(single)


def _in_float32(scalar: Tensor) -> Tensor:
    if scalar.dtype == tf.float64:
        # A finite float64 may be out of float32's range.
        scalar = tf.where(tf.math.is_finite(scalar), tf.zeros_like(scalar), scalar)
    return scalar if scalar.dtype == tf.float32 else tf.cast(scalar, tf.float32)


class _Search:
    """A search for the scalars of an update.

    Attributes:
        used: operations of the update, in the guard's graph, that the scalars depend on.
    """

    def __init__(
        self, graph: Graph, operations: Sequence[Op], written: set[Any], *, gradients: Sequence[Tensor]
    ) -> None:
        self._graph, self._operations = graph, operations
        self._own = {op.name for op in operations}
        self._gradients = {_place(tensor) for tensor in gradients}
        self._branch_inputs: dict[Place, Tensor] = {}
        self._stale: set[Place] = set()
        self._changing = written | self._note_reads(operations, frozenset())
        self._is_known: dict[Place, bool] = {}
        self._is_early: dict[Place, bool] = {}
        self._outer: dict[Any, Tensor] = {}
        self._keys: dict[Place, Any] = {}
        self.used: set[Op] = set()

    def scalars(self, *, is_branch: bool, is_scaled: bool) -> list[Tensor]:
        """Return the scalars, each once, as tensors of the guard's graph."""
        operations = self._operations
        if is_branch:
            ((_, update), _) = next(found for op in reversed(operations) if (found := _branches(op)))
            operations = update.get_operations()
        found = [*self._scalars(operations, None)]
        for op in operations if is_scaled else ():
            for is_true, branch in _branches(op):
                if is_true and self._condition(op.inputs[0], None, is_true=True) is None:
                    found += self._scalars(branch.get_operations(), None)
        return list({_place(scalar): scalar for scalar in found}.values())

    def _note_reads(self, operations: Sequence[Op], before: frozenset[Any]) -> set[Any]:
        """Note the operations that read what the update wrote before; return the floating variables that it writes."""
        written, floating = set(before), set[Any]()
        written_by: dict[str, list[Tensor]] = {}
        for op, resource in writes(operations):
            written_by.setdefault(op.name, []).append(resource)
        for op in operations:
            if any(key_of(tensor) in written for tensor in op.inputs if _is_resource(tensor)):
                self._stale.add((id(op.graph), op.name))
            for _, branch in _branches(op):
                inputs = zip(branch.inputs, op.inputs[1:], strict=True)
                self._branch_inputs.update((_place(inner), outer) for inner, outer in inputs)
                floating |= self._note_reads(branch.get_operations(), frozenset(written))
            keys = {key_of(resource) for resource in written_by.get(op.name, ())}
            written |= keys
            floating |= keys if not _branches(op) and _writes_numbers(op) else set()
        return floating

    def _scalars(self, operations: Sequence[Op], is_taken: Tensor | None) -> Iterator[Tensor]:
        for op in operations:
            for tensor in _multiplied(op):
                if self._is_result_known(op) or not self._knows(tensor):
                    continue
                scalar = self._outside(tensor)
                yield scalar if is_taken is None else tf.where(is_taken, scalar, tf.zeros_like(scalar))
            for is_true, branch in _branches(op):
                condition = self._condition(op.inputs[0], is_taken, is_true=is_true)
                if condition is not None:
                    yield from self._scalars(branch.get_operations(), condition)

    def _condition(self, predicate: Tensor, is_taken: Tensor | None, *, is_true: bool) -> Tensor | None:
        """Return whether a branch is taken, as a tensor of the guard's graph; ``None`` if that is known too late."""
        predicate = self._resolved(predicate)
        if not (self._knows(predicate) or self._comes_early(predicate)):
            return None
        condition = self._outside(predicate)
        condition = condition if is_true else tf.logical_not(condition)
        return condition if is_taken is None else is_taken & condition

    def _is_result_known(self, op: Op) -> bool:
        # A result of scalars alone is checked where it meets a gradient: 1 / Inf is finite.
        return op.type in _FACTORS and self._knows(op.outputs[0])

    def _knows(self, tensor: Tensor) -> bool:
        """Return whether a tensor has its value before the update, whatever the gradients are."""
        return self._holds(tensor, self._is_known, may_use_gradients=False)

    def _comes_early(self, tensor: Tensor) -> bool:
        """Return whether a tensor of the guard's graph has its value before the update writes anything."""
        return tensor.graph is self._graph and self._holds(tensor, self._is_early, may_use_gradients=True)

    def _holds(self, tensor: Tensor, memory: dict[Place, bool], *, may_use_gradients: bool) -> bool:
        waiting, seen = [self._resolved(tensor)], set[Place]()
        while waiting:
            waiting_tensor = waiting.pop()
            place = _place(waiting_tensor)
            if place in seen or memory.get(place):
                continue
            seen.add(place)
            if may_use_gradients and waiting_tensor.op.name not in self._own:
                continue
            is_gradient = place in self._gradients and not may_use_gradients
            is_unfit = is_gradient or not self._is_fit(waiting_tensor, may_use_gradients=may_use_gradients)
            if memory.get(place) is False or is_unfit or len(seen) > _MOST_OPERATIONS:
                memory[_place(self._resolved(tensor))] = False
                return False
            waiting += [self._resolved(given) for given in waiting_tensor.op.inputs if not _is_resource(given)]
        memory.update(dict.fromkeys(seen, True))
        return True

    def _is_fit(self, tensor: Tensor, *, may_use_gradients: bool) -> bool:
        op = tensor.op
        if (id(op.graph), op.name) in self._stale:
            return False
        read = [key_of(given) for given in (tensor, *op.inputs) if _is_resource(given)]
        if tensor.dtype == tf.resource or (not may_use_gradients and any(key in self._changing for key in read)):
            return False
        if op.graph is self._graph:
            is_free = not any(other.name in self._own for other in op.control_inputs)
        else:
            # The branch's inputs are resolved already. A call of a function could be copied only with the function.
            calls = any(attr.HasField("func") for attr in op.node_def.attr.values())
            is_free = not calls and op.type not in _GIVEN - {"Const"}
        return is_free and (op.type in _GIVEN | REFERENCES | _READS or not op.op_def.is_stateful)

    def _resolved(self, tensor: Tensor) -> Tensor:
        while _place(tensor) in self._branch_inputs:
            tensor = self._branch_inputs[_place(tensor)]
        return tensor

    def _outside(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the guard's graph with the value of a branch's tensor; equal tensors share it."""
        tensor = self._resolved(tensor)
        if _is_resource(tensor):
            return tensor
        key = self._key(tensor)
        if key not in self._outer:
            self._outer[key] = tensor if tensor.graph is self._graph else self._copied(tensor)
            if tensor.graph is self._graph:
                self._use(tensor.op)
        return self._outer[key]

    def _key(self, tensor: Tensor) -> Any:
        """Return a key that two tensors share if the same operations compute them from the same inputs."""
        op = self._resolved(tensor).op
        place = id(op.graph), op.name
        if place not in self._keys:
            if op.type in _GIVEN - {"Const"} or _is_resource(tensor):
                self._keys[place] = key_of(tensor) if _is_resource(tensor) else place
            else:
                attrs = tuple(sorted((name, str(attr)) for name, attr in op.node_def.attr.items() if name[0] != "_"))
                self._keys[place] = hash((op.type, attrs, *(self._key(self._resolved(given)) for given in op.inputs)))
        return self._keys[place], self._resolved(tensor).value_index

    def _use(self, op: Op) -> None:
        waiting = [op]
        while waiting:
            used_op = waiting.pop()
            if used_op not in self.used and used_op.name in self._own:
                self.used.add(used_op)
                waiting += [given.op for given in used_op.inputs]

    def _copied(self, tensor: Tensor) -> Tensor:
        op = tensor.op
        inputs = [self._outside(given) for given in op.inputs]
        if op.type in _READS:
            value = tf.raw_ops.ReadVariableOp(resource=inputs[0], dtype=tensor.dtype)
            # The read comes before all writes of the update, and must not be ordered after them.
            run_independently(value.op)
            return value
        return copy_operation(op, self._graph, inputs).outputs[tensor.value_index]


def _place(tensor: Tensor) -> Place:
    return id(tensor.graph), tensor.name


def _is_resource(tensor: Tensor) -> bool:
    return tensor.dtype == tf.resource or is_reference(tensor)


def _branches(op: Op) -> list[tuple[bool, Graph]]:
    """Return the branches of a conditional with the predicate that takes each; nothing for another operation."""
    graphs = inner_graphs(op) if op.type in ("If", "StatelessIf") else []
    return list(zip((True, False), graphs, strict=False))


def _multiplied(op: Op) -> Iterator[Tensor]:
    """Yield the scalar operands of an operation that make its result non-finite if they are."""
    if op.type in _FACTORS:
        places: Iterable[int] = _FACTORS[op.type]
    elif op.type in _ASSIGNS:
        places = (1,)
    elif op.type.startswith(_FUSED):
        places = [at for at, argument in enumerate(op.op_def.input_arg) if argument.name in _RATES]
    else:
        return
    for place in places:
        tensor = op.inputs[place]
        is_made_always = not has_context(tensor.op)
        if tensor.shape.rank == 0 and tensor.dtype.is_floating and not _is_resource(tensor) and is_made_always:
            yield tensor


def _writes_numbers(op: Op) -> bool:
    return any(tensor.dtype.base_dtype.is_floating for tensor in op.inputs)
