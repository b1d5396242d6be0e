"""The traces of a step: which graph belongs to which step, and which updates and guards it contains."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.graphs import Graph, creation_scopes, function_of, is_inside, with_enclosing
from tb_nanwatch.watch.guard.guard import FunctionGuard, GuardKind, hold_back
from tb_nanwatch.watch.guard.state import KeptVariable, undo_unless

_CALLS: Final = frozenset(
    {"If", "StatelessIf", "Case", "While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall"}
)


class BeginAgain(Exception):  # noqa: N818 - no error: it asks the caller for a new trace
    """The step must be traced again: this trace showed more to watch than the plan knew, and now the plan knows it."""


class _Guarded(NamedTuple):
    """A guard with its update, in a step that is being traced.

    Attributes:
        allowed: whether the update may run; ``None`` if the guard is in a loop, a branch or a function of the step.
        kind: kind of the guard.
        kept: variables that the forward pass changed.
        first: place of the first operation of the guard in the step's graph.
        last: place of the first operation after the update.
    """

    allowed: tf.Tensor | None
    kind: GuardKind
    kept: Sequence[KeptVariable]
    first: int
    last: int


class _Place(NamedTuple):
    """The function in which something was traced.

    Attributes:
        function: graph of the function.
        created: variables that this trace creates; ``None`` if it may create none.
    """

    function: weakref.ref[Any]
    created: list[Any] | None

    @classmethod
    def of(cls, graph: Graph) -> _Place:
        scopes = creation_scopes(graph)
        return cls(weakref.ref(function_of(graph)), scopes[0] if scopes else None)

    @property
    def is_traced_again(self) -> bool:
        """Whether TensorFlow drops the trace, because it created variables, and traces the function again."""
        return bool(self.created)

    def is_dropped(self, graph: Graph) -> bool:
        """Return whether TensorFlow has dropped the trace, now that it traces ``graph``."""
        function = self.function()
        return self.is_traced_again and (function is None or not is_inside(graph, function))


class _Update(NamedTuple):
    """An ``apply_gradients`` of a step; ``place`` is ``None`` for an eager step."""

    run: int
    variables: frozenset[int]
    allowed: tf.Tensor
    graph: Any
    place: _Place | None


class Traces:
    """Follows the steps of a watch while they are traced, and eager steps while they run.

    Methods that take a graph take ``None`` for an eager step.
    """

    def __init__(self) -> None:
        """Begin before the first step."""
        self._steps: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        self._guards: list[_Guarded] = []
        self._updates: weakref.WeakKeyDictionary[Any, _Update] = weakref.WeakKeyDictionary()
        self._eager: _Update | None = None
        self._accumulating: weakref.WeakKeyDictionary[Any, list[tf.Tensor]] = weakref.WeakKeyDictionary()
        self._lenient: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_eager_start_known = False
        self._laid_out: _Place | None = None

    def begin(self, graph: Graph, *, can_begin_again: bool) -> None:
        """Note the graph of a whole step.

        Args:
            graph: graph of the step.
            can_begin_again: whether the caller catches :class:`BeginAgain` and traces the step again.
        """
        self._steps[graph] = can_begin_again

    def begin_eager(self) -> None:
        """Mark the start of an eager step that another loop runs, such as ``model.fit``, and marks every time."""
        self._eager, self._is_eager_start_known = None, True

    def allow_repeated_updates(self, graph: Graph) -> None:
        """Allow this step to update a variable twice: Keras wrote it, not the user."""
        self._lenient.add(graph)

    def allows_repeated_updates(self, graph: Graph | None) -> bool:
        """Return whether a step may update a variable twice."""
        return self._is_eager_start_known if graph is None else self.step_of(graph) in self._lenient

    def can_begin_again(self, graph: Graph) -> bool:
        """Return whether the step may be traced again by raising :class:`BeginAgain`."""
        # A variable that a trace creates is useless if the trace fails.
        return self._steps.get(self.step_of(graph), False) and not any(creation_scopes(graph))

    def is_traced_again(self, graph: Graph | None) -> bool:
        """Return whether TensorFlow will drop the current trace and trace the function again."""
        return graph is not None and _Place.of(graph).is_traced_again

    def note_layout(self, graph: Graph | None) -> None:
        """Note that the current trace fixes the layout of rows."""
        self._laid_out = None if graph is None else _Place.of(graph)

    def is_layout_dropped(self, graph: Graph | None) -> bool:
        """Return whether the trace that fixed the layout of rows is dropped, now that ``graph`` is traced."""
        return graph is not None and self._laid_out is not None and self._laid_out.is_dropped(graph)

    def step_of(self, graph: Graph) -> Any:
        """Return the graph of the step that contains a graph; outside of any step, the graph around its branches."""
        *_, top = with_enclosing(graph)
        return next((step for step in self._steps if is_inside(graph, step)), top)

    def is_second(self, graph: Graph | None, variables: Sequence[Any], *, run: int) -> bool:
        """Return whether an ``apply_gradients`` comes after another one of the same step.

        Args:
            graph: graph that it is traced in.
            variables: variables that it updates.
            run: number of the run of a step that it is in; 0 for none.

        Raises:
            SetupError: if a step updates a variable both inside and outside of a loop or function.
        """
        if graph is None:
            # One run may take many eager steps. Then a later update is of the same variables.
            others = self._eager.variables if self._eager and self._eager.run == run > 0 else frozenset()
            if self._is_eager_start_known:
                return bool(others)
            return bool(others) and not others & _ids(variables)
        update = self._update_before(graph)
        is_repeated = update is not None and bool(update.variables & _ids(variables))
        if is_repeated and self.allowed_before(graph) is None and not self.allows_repeated_updates(graph):
            raise SetupError(
                "the updates of a variable in one step must be in one function, or all in one loop of TensorFlow's;"
                " got one inside and one outside: for many steps in one call put them all in the loop"
            )
        return update is not None

    def allowed_before(self, graph: Graph | None) -> tf.Tensor | None:
        """Return whether the previous update of the step may run; ``None`` if ``graph`` cannot use that tensor."""
        if graph is None:
            return self._eager.allowed if self._eager else None
        update = self._update_before(graph)
        return update.allowed if update and any(part is update.graph for part in with_enclosing(graph)) else None

    def note_update(self, graph: Graph | None, variables: Sequence[Any], *, run: int, allowed: tf.Tensor) -> None:
        """Note an ``apply_gradients``, with the arguments of :meth:`is_second` and whether it may run."""
        if graph is None:
            self._eager = _Update(run, _ids(variables), allowed, graph, None)
            return
        before = self._update_before(graph)
        others = frozenset[int]() if before is None else before.variables
        self._updates[self.step_of(graph)] = _Update(run, others | _ids(variables), allowed, graph, _Place.of(graph))

    def _update_before(self, graph: Graph) -> _Update | None:
        update = self._updates.get(self.step_of(graph))
        is_dropped = update is not None and update.place is not None and update.place.is_dropped(graph)
        return None if is_dropped else update

    def note_accumulation(self, graph: Graph, is_first: tf.Tensor) -> None:
        """Note that a step measures a micro-batch.

        Args:
            graph: graph that measures it.
            is_first: whether none was measured since the last update, a bool scalar of the graph.
        """
        self._accumulating.setdefault(self.step_of(graph), []).append(is_first)

    def has_all_microbatches(self, graph: Graph) -> bool | tf.Tensor:
        """Return whether a step measures all micro-batches of its update itself.

        Args:
            graph: graph that the update is in.

        Returns:
            A bool scalar if the step measures micro-batches: then only its run can know.
        """
        noted = self._accumulating.get(self.step_of(graph))
        if not noted:
            return False
        first = noted[0]
        return first if any(first.graph is part for part in with_enclosing(graph)) else True

    def forget_updates(self) -> None:
        """Forget every ``apply_gradients`` and guard, because the step begins again."""
        self._updates.clear()
        self._guards.clear()
        self._accumulating.clear()
        self._eager = None

    def size_of(self, graph: Graph | None) -> int:
        """Return how many operations the step of a graph has so far."""
        return 0 if graph is None else len(self.step_of(graph).get_operations())

    def note_guard(self, graph: Graph, allowed: tf.Tensor, guard: FunctionGuard, *, since: int) -> None:
        """Note a guard of a step that is being traced.

        Args:
            graph: graph of the guard.
            allowed: whether its update may run.
            guard: guard, with its update traced.
            since: number of operations that the step had before the guard.
        """
        step = self.step_of(graph)
        if step in self._steps and guard.kind != "none":
            inner = allowed if step is graph else None
            if inner is not None and guard.is_whole is not None:
                inner |= ~guard.is_whole
            self._guards.append(_Guarded(inner, guard.kind, guard.kept, since, len(step.get_operations())))

    def finish(self, graph: Graph) -> None:
        """Make the operations that were traced after a guard wait for it, or undo their writes with its update."""
        everything = graph.get_operations()
        own = {at for guarded in self._guards for at in range(guarded.first, guarded.last)}
        for allowed, kind, kept, _, last in self._guards:
            if kind != "stop":
                if allowed is not None:
                    others = [op for at, op in enumerate(everything) if at >= last and at not in own]
                    undo_unless(allowed, graph, others, before=kept)
                continue
            # A guard inside a loop, a branch or a function ends with the operation that calls it.
            calls = (at for at in range(last, len(everything)) if everything[at].type in _CALLS)
            at = last - 1 if allowed is not None else next(calls, None)
            if at is not None:
                hold_back(everything[at + 1 :], until=everything[at] if allowed is None else allowed.op)
        self._guards.clear()


def _ids(variables: Sequence[Any]) -> frozenset[int]:
    return frozenset(id(variable) for variable in variables)
