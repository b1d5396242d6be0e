"""The traces of a step: which graph is whose, what comes before another in it, and what has to wait for the guard."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.graphs import Graph, creation_scopes, function_of, is_inside, with_enclosing
from tb_nanwatch.watch.guard.guard import Guard, GuardKind
from tb_nanwatch.watch.guard.state import Kept, hold_back, undo_unless

_CALLS: Final = frozenset(
    {"If", "StatelessIf", "Case", "While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall"}
)


class BeginAgain(Exception):  # noqa: N818 - no error: the step was seen to have more to watch than was thought
    """The step that is being traced must be traced anew: by now the plan knows all that is in it."""


class _Guarded(NamedTuple):
    """A guard and the update that it guards, in a step that is being traced: where they begin and end in its graph.

    Attributes:
        allowed: whether the update may run; ``None`` where the guard is in a loop, a branch or a function of the step.
        kind: how it guards.
        kept: what the forward pass changed.
        first: its first operation.
        last: the first operation after it.
    """

    allowed: tf.Tensor | None
    kind: GuardKind
    kept: Sequence[Kept]
    first: int
    last: int


class _Place(NamedTuple):
    """Where something was traced.

    Attributes:
        function: the graph of the function.
        made: the variables that its trace makes; ``None`` where it may make none.
    """

    function: weakref.ref[Any]
    made: list[Any] | None

    @classmethod
    def of(cls, graph: Graph) -> _Place:
        scopes = creation_scopes(graph)
        return cls(weakref.ref(function_of(graph)), scopes[0] if scopes else None)

    @property
    def is_traced_again(self) -> bool:
        """Whether TensorFlow drops the trace, and traces the function anew, since it made variables."""
        return bool(self.made)

    def is_dropped(self, graph: Graph) -> bool:
        """Return whether TensorFlow has dropped the trace, if ``graph`` is traced now."""
        function = self.function()
        return self.is_traced_again and (function is None or not is_inside(graph, function))


class _Update(NamedTuple):
    """An ``apply_gradients`` of a step; ``place`` is ``None`` where it is eager."""

    run: int
    variables: frozenset[int]
    allowed: tf.Tensor
    graph: Any
    place: _Place | None


class Traces:
    """Follows the steps of a watch as they are traced, and eager ones as they are run."""

    def __init__(self) -> None:
        """Begin before the first."""
        self._steps: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        self._guards: list[_Guarded] = []
        self._updates: weakref.WeakKeyDictionary[Any, _Update] = weakref.WeakKeyDictionary()
        self._eager: _Update | None = None
        self._accumulating: weakref.WeakKeyDictionary[Any, list[tf.Tensor]] = weakref.WeakKeyDictionary()
        self._lenient: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_eager_step_known = False
        self._laid_out: _Place | None = None

    def begin(self, graph: Graph, *, can_begin_again: bool) -> None:
        """Know a graph as that of a whole step, and whether its caller can give up its trace for another one."""
        self._steps[graph] = can_begin_again

    def begin_eager(self) -> None:
        """Know that an eager step begins, and that the next one will be told as well."""
        self._eager, self._is_eager_step_known = None, True

    def be_lenient(self, graph: Graph) -> None:
        """Know a step whose author cannot be asked to write it for a watch: it may update a variable twice."""
        self._lenient.add(graph)

    def is_lenient(self, graph: Graph | None) -> bool:
        """Return whether the step of a graph, or of ``None`` an eager one, is such a step."""
        return self._is_eager_step_known if graph is None else self.step_of(graph) in self._lenient

    def can_begin_again(self, graph: Graph) -> bool:
        """Return whether the trace of a step can be given up for another one by raising :class:`BeginAgain`."""
        # A variable that a trace made is good for nothing if the trace fails.
        return self._steps.get(self.step_of(graph), False) and not any(creation_scopes(graph))

    def is_traced_again(self, graph: Graph | None) -> bool:
        """Return whether TensorFlow will drop the trace that is going on, and trace the function anew."""
        return graph is not None and _Place.of(graph).is_traced_again

    def lay_out(self, graph: Graph | None) -> None:
        """Remember that the layout of rows is fixed by what is traced now; ``None`` for an eager step."""
        self._laid_out = None if graph is None else _Place.of(graph)

    def is_layout_dropped(self, graph: Graph | None) -> bool:
        """Return whether the trace that fixed the layout of rows was dropped, if ``graph`` is traced now."""
        return graph is not None and self._laid_out is not None and self._laid_out.is_dropped(graph)

    def step_of(self, graph: Graph) -> Any:
        """Return the graph of the step that a graph is a part of; of no step, the graph around its branches."""
        *_, top = with_enclosing(graph)
        return next((one for one in self._steps if is_inside(graph, one)), top)

    def is_second(self, graph: Graph | None, variables: Sequence[Any], *, run: int) -> bool:
        """Return whether an ``apply_gradients`` comes after another one of the same step.

        Args:
            graph: that it is traced in; ``None`` for an eager step.
            variables: that it updates.
            run: which run of a step it is in; 0 for none.

        Raises:
            SetupError: if a step updates a variable in a loop, or a function, and outside of it.
        """
        if graph is None:
            # An eager step may be one of many in a run, but then it is one of the same variables.
            others = self._eager.variables if self._eager and self._eager.run == run > 0 else frozenset()
            if self._is_eager_step_known:
                return bool(others)
            return bool(others) and not others & _ids(variables)
        update = self._update_before(graph)
        is_repeated = update is not None and bool(update.variables & _ids(variables))
        if is_repeated and self.allowed_before(graph) is None and not self.is_lenient(graph):
            raise SetupError(
                "the updates of a variable in one step must be in one function, or all in one loop of TensorFlow's;"
                " got one inside and one outside: for many steps in one call put them all in the loop"
            )
        return update is not None

    def allowed_before(self, graph: Graph | None) -> tf.Tensor | None:
        """Return whether the update before a second one may run; ``None`` where the second cannot be given that."""
        if graph is None:
            return self._eager.allowed if self._eager else None
        update = self._update_before(graph)
        return update.allowed if update and any(one is update.graph for one in with_enclosing(graph)) else None

    def note(self, graph: Graph | None, variables: Sequence[Any], *, run: int, allowed: tf.Tensor) -> None:
        """Remember an ``apply_gradients``; see :meth:`is_second`."""
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
        """Remember that a step measures micro-batches.

        Args:
            graph: that one is measured in.
            is_first: whether none was measured since the last update, a bool scalar of the graph.
        """
        self._accumulating.setdefault(self.step_of(graph), []).append(is_first)

    def has_all_microbatches(self, graph: Graph) -> bool | tf.Tensor:
        """Return whether the micro-batches of an update are all of the step that the update is in.

        Args:
            graph: that the update is in.

        Returns:
            Of a step that measures some, a bool scalar; whether it is so can be known only as the step runs.
        """
        noted = self._accumulating.get(self.step_of(graph))
        if not noted:
            return False
        first = noted[0]
        return first if any(first.graph is one for one in with_enclosing(graph)) else True

    def forget_updates(self) -> None:
        """Know of no ``apply_gradients`` any more: the step begins again."""
        self._updates.clear()
        self._guards.clear()
        self._accumulating.clear()
        self._eager = None

    def size_of(self, graph: Graph | None) -> int:
        """Return how many operations the step of a graph has so far."""
        return 0 if graph is None else len(self.step_of(graph).get_operations())

    def guard(self, graph: Graph, allowed: tf.Tensor, guard: Guard, *, since: int) -> None:
        """Note a guard in a step that is being traced.

        Args:
            graph: that it is in.
            allowed: whether its update may run.
            guard: as it was traced.
            since: how many operations the step had before it.
        """
        step = self.step_of(graph)
        if step in self._steps and guard.kind != "none":
            inner = allowed if step is graph else None
            if inner is not None and guard.is_whole is not None:
                inner |= ~guard.is_whole
            self._guards.append(_Guarded(inner, guard.kind, guard.kept, since, len(step.get_operations())))

    def finish(self, graph: Graph) -> None:
        """Make what was traced after a guard wait for it, or see that it is undone with the update."""
        everything = graph.get_operations()
        own = {at for guarded in self._guards for at in range(guarded.first, guarded.last)}
        for allowed, kind, kept, _, last in self._guards:
            if kind != "stop":
                if allowed is not None:
                    others = [op for at, op in enumerate(everything) if at >= last and at not in own]
                    undo_unless(allowed, graph, others, before=kept)
                continue
            # A guard inside a loop, a branch or a function is waited for by waiting for that.
            calls = (at for at in range(last, len(everything)) if everything[at].type in _CALLS)
            at = last - 1 if allowed is not None else next(calls, None)
            if at is not None:
                hold_back(everything[at + 1 :], until=everything[at] if allowed is None else allowed.op)
        self._guards.clear()


def _ids(variables: Sequence[Any]) -> frozenset[int]:
    return frozenset(id(variable) for variable in variables)
