"""The plan: what is measured of every step, fixed by the first one, and each trace of the step laid out by it."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import ClipKind, Policy, Variable
from tb_nanwatch.watch.freeze import hold_back, keep_state
from tb_nanwatch.watch.graph import Graph, backward_order, scale_factors
from tb_nanwatch.watch.guard import Guard, GuardKind
from tb_nanwatch.watch.layout import Layout
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.observation import Observation
from tb_nanwatch.watch.recorder import Recorder
from tb_nanwatch.watch.state import written_statistics


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
        if raw is not None and len(raw) != len(pairs):
            raise SetupError(f"raw must have one gradient for each pair; got {len(raw)} for {len(pairs)} pairs")
        if all(gradient is None for gradient, _ in pairs):
            raise SetupError(
                "apply_gradients must be given at least one gradient; got none: does the loss use the variables?"
            )
        if not tf.compat.v1.executing_eagerly_outside_functions():
            raise SetupError("a graph of TensorFlow 1 cannot be watched; use tf.function, or eager execution")
        clips = raw is not None and any(before is not after for before, (after, _) in zip(raw, pairs, strict=True))
        loss = None if loss is None else tf.convert_to_tensor(loss)
        step = None if step is None else tf.cast(tf.convert_to_tensor(step), tf.int64)
        return cls(pairs, raw if clips else None, loss, step)


class Plan:
    """What is measured of every step.

    Attributes:
        variables: in column order.
        layout: of the rows; ``None`` before the first step.
        recorder: of the device; ``None`` before the first step.
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
        self._pending: dict[str, tf.Tensor] = {}
        self._guards: dict[int, tuple[Any, int]] = {}
        self._observed: weakref.WeakSet[Any] = weakref.WeakSet()
        self._told: set[str] = set()
        self.layout: Layout | None = None
        self.recorder: Recorder | None = None
        self.polls = False
        self.counted = True

    @property
    def described(self) -> tuple[Variable, ...]:
        """The variables as the header lists them; before the first step without their places in the backward pass."""
        return self.layout.variables if self.layout else describe(self.variables, [None] * len(self.variables))

    def watch_tensor(self, name: str, value: tf.Tensor) -> None:
        """Keep a tensor for the step that is being traced or run; two of one name in one trace become ``name#2``.

        Raises:
            SetupError: if it is not floating.
        """
        if not value.dtype.is_floating:
            raise SetupError(f"a watched tensor must be floating; {name!r} is {value.dtype.name}")
        unique, number = name, 1
        while tf.is_symbolic_tensor(value) and unique in self._pending:
            number += 1
            unique = f"{name}#{number}"
        self._pending[unique] = value

    def observe(self, inputs: StepInputs, *, in_step: bool) -> tuple[Guard, tf.Tensor]:
        """Measure and record one step.

        Args:
            inputs: what the user gave.
            in_step: whether the call is inside a function that catches what the guard raises.

        Returns:
            The guard, and whether it lets the update through.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self._check_alone(graph)
        tensors = self._tensors_of(graph)
        if self.layout is None or self.recorder is None:
            self.layout, self.recorder = self._complete(inputs, tuple(tensors), graph)
            self.counted = inputs.step is None
        observation = self._observation(inputs, tensors, graph=graph, layout=self.layout)
        guard = self._guard(graph, in_step=in_step, recorder=self.recorder)
        allowed = guard.observe(observation, inputs.step)
        if guard.kind == "stop" and graph is not None:
            self._guards[id(graph)] = (allowed.op, len(graph.get_operations()))
        return guard, allowed

    def finish_trace(self, graph: Graph) -> None:
        """Make what was traced after a guard that stops the step wait for it."""
        guard, place = self._guards.pop(id(graph), (None, 0))
        if guard is not None:
            hold_back(graph.get_operations()[place:], until=guard)
        self._guards.clear()
        self._pending.clear()

    def _check_alone(self, graph: Graph | None) -> None:
        if graph is None:
            return
        if graph in self._observed:
            raise SetupError(
                "a watch must see one apply_gradients in a step; give a second optimizer a Watch of its own"
            )
        self._observed.add(graph)

    def _complete(self, inputs: StepInputs, tensors: tuple[str, ...], graph: Graph | None) -> tuple[Layout, Recorder]:
        known = {id(variable) for variable in self.variables}
        self.variables += [variable for _, variable in inputs.pairs if id(variable) not in known]
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
        self, inputs: StepInputs, tensors: dict[str, tf.Tensor], *, graph: Graph | None, layout: Layout
    ) -> Observation:
        if layout.loss and inputs.loss is None:
            raise SetupError("loss must be given to every apply_gradients of a watch, or to none; this call has none")
        clipped = self._by_column([gradient for gradient, _ in inputs.pairs], inputs)
        raw = clipped if inputs.raw is None else self._by_column(inputs.raw, inputs)
        self._name_unwatched(inputs, tensors, layout)
        written = written_statistics(graph, self.variables, layout.variables)
        return Observation(
            raw=raw,
            clipped=None if layout.clip == "none" else clipped,
            weights=[tf.convert_to_tensor(variable) for variable in self.variables],
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
        kept = [] if graph is None or kind == "none" else keep_state(graph, self.variables)
        return Guard(kind, recorder, kept)

    def _tensors_of(self, graph: Graph | None) -> dict[str, tf.Tensor]:
        found = {}
        for name, value in self._pending.items():
            if graph is None or getattr(value, "graph", None) is graph:
                found[name] = value
            else:
                self._say_once(f"tensor {name!r} is made inside a nested function or branch")
        self._pending.clear()
        return found

    def _name_unwatched(self, inputs: StepInputs, tensors: dict[str, tf.Tensor], layout: Layout) -> None:
        known = {id(variable) for variable in self.variables}
        for _, variable in inputs.pairs:
            if id(variable) not in known:
                self._say_once(f"variable {variable.name!r} came after the first step")
        for name in tensors:
            if name not in layout.tensors:
                self._say_once(f"tensor {name!r} came after the first step")
        if inputs.raw is not None and layout.clip == "none":
            self._say_once("clipping that came after the first step")

    def _say_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(f"tb_nanwatch does not watch: {what}", stacklevel=2)
