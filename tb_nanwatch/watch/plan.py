"""The plan: what is measured of every step, fixed by the first one, and each trace of the step laid out by it."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
from tensorflow.python.ops.control_flow_v2_func_graphs import WhileBodyFuncGraph

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import ClipKind, Policy, Variable
from tb_nanwatch.watch.freeze import Kept, hold_back, keep_state, writes_variables
from tb_nanwatch.watch.graph import Graph, Op, backward_order, handle_of, is_inside, scale_factors, with_enclosing
from tb_nanwatch.watch.guard import Guard, GuardKind
from tb_nanwatch.watch.layout import Layout
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.observation import Observation
from tb_nanwatch.watch.pending import PendingTensors
from tb_nanwatch.watch.recorder import Recorder
from tb_nanwatch.watch.state import written_statistics

_CALLS: Final = frozenset(
    {"If", "StatelessIf", "Case", "While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall"}
)


class StepInputs(NamedTuple):
    """What ``apply_gradients`` was given.

    Attributes:
        pairs: gradient after clipping, and variable.
        raw: gradients before clipping, in the same order; ``None`` where nothing clips.
        loss: scalar or one for each sample; ``None`` if not given.
        step: the user's step; ``None`` if steps are counted.
    """

    pairs: Sequence[tuple[Any, Any]]
    raw: Sequence[Any] | None
    loss: tf.Tensor | None
    step: tf.Tensor | None

    @classmethod
    def checked(
        cls, pairs: Sequence[tuple[Any, Any]], *, raw: Sequence[Any] | None, loss: Any, step: Any
    ) -> StepInputs:
        """Check what the user gave.

        Raises:
            SetupError: if it cannot be a step's.
        """
        odd = next((pair for pair in pairs if not _is_pair(pair)), None)
        if odd is not None:
            raise SetupError(
                "apply_gradients must be given pairs of gradient and variable, as zip(gradients, variables) makes them;"
                f" got a {type(odd).__name__}"
            )
        if raw is not None and len(raw) != len(pairs):
            raise SetupError(f"raw must have one gradient for each pair; got {len(raw)} for {len(pairs)} pairs")
        if all(gradient is None for gradient, _ in pairs):
            raise SetupError(
                "apply_gradients must be given at least one gradient; got none: does the loss use the variables?"
            )
        if not tf.compat.v1.executing_eagerly_outside_functions():
            raise SetupError("a graph of TensorFlow 1 cannot be watched; use tf.function, or eager execution")
        clips = raw is not None and any(before is not after for before, (after, _) in zip(raw, pairs, strict=True))
        loss = None if loss is None else _floating(tf.convert_to_tensor(loss))
        step = None if step is None else tf.cast(tf.convert_to_tensor(step), tf.int64)
        return cls(pairs, raw if clips else None, loss, step)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and hasattr(pair[1], "assign")


def _floating(loss: tf.Tensor) -> tf.Tensor:
    if not (loss.dtype.is_floating or loss.dtype.is_integer or loss.dtype.is_bool):
        raise SetupError(f"loss must be a number; got a tensor of {loss.dtype.name}")
    return loss if loss.dtype.is_floating else tf.cast(loss, tf.float32)


class Plan:
    """What is measured of every step.

    Attributes:
        variables: in column order.
        layout: of the rows; ``None`` before the first step.
        recorder: of the device; ``None`` before the first step.
        tensors: watched tensors, for the step that is being traced or run.
        polls: whether an incident makes no noise of its own, so that the host has to ask after it.
        counted: whether steps are counted, for want of a step of the user's.
    """

    def __init__(self, variables: Iterable[Any], *, window: int, policy: Policy) -> None:
        """Prepare; the first step completes it.

        Args:
            variables: in the order in which they are to be shown; may be empty.
            window: rows that the ring holds.
            policy: the user's.
        """
        self.variables = list(variables)
        self._window, self._policy = window, policy
        self.tensors = PendingTensors()
        self._steps: weakref.WeakSet[Any] = weakref.WeakSet()
        self._guards: list[tuple[Op | None, int]] = []
        self._observed: weakref.WeakSet[Any] = weakref.WeakSet()
        self._observed_eagerly: tuple[int, frozenset[int]] = (0, frozenset())
        self._told: set[str] = set()
        self.layout: Layout | None = None
        self.recorder: Recorder | None = None
        self.polls = False
        self.counted = True

    @property
    def described(self) -> tuple[Variable, ...]:
        """The variables as the header lists them; before the first step without their places in the backward pass."""
        return self.layout.variables if self.layout else describe(self.variables, [None] * len(self.variables))

    def observe(self, inputs: StepInputs, *, run: int) -> tuple[Guard, tf.Tensor]:
        """Measure and record one step.

        Args:
            inputs: what the user gave.
            run: which run of a function that catches what the guard raises the call is inside of; 0 for none.

        Returns:
            The guard, and whether it lets the update through.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self._check_alone(graph, inputs, run=run)
        tensors = self._tensors_of(graph)
        if self.layout is None or self.recorder is None:
            self.layout, self.recorder = self._complete(inputs, tuple(tensors), graph)
            self.counted = inputs.step is None
        guard = self._guard(graph, in_step=run > 0, recorder=self.recorder)
        observation = self._observation(inputs, tensors, graph=graph, layout=self.layout, guard=guard)
        allowed = guard.observe(observation, inputs.step)
        if guard.kind == "stop" and graph is not None:
            self._hold_back_later(graph, allowed.op)
        return guard, allowed

    def begin_trace(self, graph: Graph) -> None:
        """Know a graph as that of a whole step."""
        self._steps.add(graph)

    def finish_trace(self, graph: Graph) -> None:
        """Make what was traced after a guard that stops the step wait for it."""
        for guard, place in self._guards:
            operations = graph.get_operations()[place:]
            # A guard inside a loop, a branch or a function is waited for by waiting for that.
            calls = (at for at, op in enumerate(operations) if op.type in _CALLS)
            at = -1 if guard is not None else next(calls, None)
            if at is not None:
                hold_back(operations[at + 1 :], until=guard or operations[at])
        self._guards.clear()
        self.tensors.take(None)

    def _hold_back_later(self, graph: Graph, guard: Op) -> None:
        step = next((one for one in self._steps if is_inside(graph, one)), None)
        if step is not None:
            self._guards.append((guard if step is graph else None, len(step.get_operations())))

    def _check_alone(self, graph: Graph | None, inputs: StepInputs, *, run: int) -> None:
        if graph is not None:
            is_second = graph in self._observed
            self._observed.add(graph)
        else:
            # An eager step may be one of many in a call, but then it is one of the same variables.
            variables = frozenset(id(variable) for _, variable in inputs.pairs)
            last, others = self._observed_eagerly
            is_second = 0 < run == last and not variables & others
            self._observed_eagerly = run, variables
        if is_second:
            raise SetupError(
                "a watch must see one apply_gradients in a step; give a second optimizer a Watch of its own"
            )

    def _complete(self, inputs: StepInputs, tensors: tuple[str, ...], graph: Graph | None) -> tuple[Layout, Recorder]:
        known = {id(variable) for variable in self.variables}
        besides = [variable for _, variable in inputs.pairs if id(variable) not in known]
        if known and besides:
            names = ", ".join(variable.name for variable in describe(besides, [None] * len(besides)))
            warnings.warn(f"tb_nanwatch watches variables that are not among those it was given: {names}", stacklevel=2)
        self.variables += besides
        described = describe(self.variables, backward_order(graph, self.variables))
        state = tuple(written_statistics(graph, self.variables, described))
        layout = Layout(described, tensors, inputs.loss is not None, self._clip_kind(inputs), state)
        with tf.init_scope():
            return layout, Recorder(window=self._window, cells=len(layout.cells))

    def _clip_kind(self, inputs: StepInputs) -> ClipKind:
        if inputs.raw is None:
            return "none"
        factors = scale_factors(inputs.raw, [gradient for gradient, _ in inputs.pairs])
        return "other" if factors is None else "scale"

    def _observation(
        self, inputs: StepInputs, tensors: dict[str, tf.Tensor], *, graph: Graph | None, layout: Layout, guard: Guard
    ) -> Observation:
        if layout.loss and inputs.loss is None:
            raise SetupError("loss must be given to every apply_gradients of a watch, or to none; this call has none")
        clipped = self._by_column([gradient for gradient, _ in inputs.pairs], inputs)
        raw = clipped if inputs.raw is None else self._by_column(inputs.raw, inputs)
        self._check_watched(inputs, tensors, layout)
        written = written_statistics(graph, self.variables, layout.variables)
        # What the forward pass assigned has another value by now than the step began with.
        kept = {id(kept.handle): kept.value for kept in guard.kept}
        return Observation(
            raw=raw,
            clipped=None if layout.clip == "none" else clipped,
            weights=[_value(variable, kept) for variable in self.variables],
            tensors=[*map(tensors.get, layout.tensors), *map(written.get, layout.state)],
            loss=inputs.loss if layout.loss else None,
        )

    def _by_column(self, gradients: Sequence[Any], inputs: StepInputs) -> list[Any]:
        of = {id(variable): gradient for gradient, (_, variable) in zip(gradients, inputs.pairs, strict=True)}
        return [of.get(id(variable)) for variable in self.variables]

    def _guard(self, graph: Graph | None, *, in_step: bool, recorder: Recorder) -> Guard:
        kind: GuardKind = "none"
        if self._policy == "raise":
            in_xla = graph is not None and GraphOrParentsInXlaContext(graph)
            kind = "latch" if in_xla or (graph is not None and not in_step) else "stop"
        self.polls = self.polls or kind != "stop"
        return Guard(kind, recorder, [] if graph is None else self._kept(graph, is_put_back=kind != "none"))

    def _kept(self, graph: Graph, *, is_put_back: bool) -> list[Kept]:
        if not is_put_back:
            return keep_state(graph, only={id(handle_of(variable)) for variable in self.variables})
        *_, top = with_enclosing(graph)
        step = next((one for one in self._steps if is_inside(graph, one)), top)
        if step is not top and not isinstance(top, WhileBodyFuncGraph) and writes_variables(step):
            self._say_once(
                "cannot put back what the step assigns outside of the function that calls apply_gradients: call it in"
                " the step itself"
            )
        return keep_state(graph)

    def _tensors_of(self, graph: Graph | None) -> dict[str, tf.Tensor]:
        found, others = self.tensors.take(graph)
        for name in others:
            self._say_once(f"does not watch tensor {name!r}: it is made in another function than apply_gradients is in")
        return found

    def _check_watched(self, inputs: StepInputs, tensors: dict[str, tf.Tensor], layout: Layout) -> None:
        known = {id(variable) for variable in self.variables}
        for gradient, variable in inputs.pairs:
            if gradient is not None and id(variable) not in known:
                self._say_once(
                    f"does not watch variable {_name(variable)!r}: it came after the first step; list every variable in"
                    " Watch(variables=...)"
                )
        for name in tensors:
            if name not in layout.tensors:
                self._say_once(f"does not watch tensor {name!r}: it came after the first step")
        if inputs.raw is not None and layout.clip == "none":
            self._say_once("does not watch clipping that came after the first step: clip from there on, and give raw=")

    def _say_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(f"tb_nanwatch {what}", stacklevel=2)


def _value(variable: Any, kept: Mapping[int, tf.Tensor]) -> tf.Tensor:
    value = kept.get(id(handle_of(variable))) if kept else None
    return tf.convert_to_tensor(variable) if value is None else value


def _name(variable: Any) -> str:
    (described,) = describe([variable], [None])
    return described.name
