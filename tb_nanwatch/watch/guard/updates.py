"""The updates of a watch's steps: each is measured, recorded, and runs only if its guard lets it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Policy
from tb_nanwatch.watch.graphs import Graph, Op, with_enclosing
from tb_nanwatch.watch.guard.guard import FunctionGuard, GuardKind
from tb_nanwatch.watch.guard.state import KeptVariable, keep_state, restore_if, writes_variables
from tb_nanwatch.watch.guard.trace import BeginAgain, Traces
from tb_nanwatch.watch.record.draws import Draws
from tb_nanwatch.watch.record.plan import Missing, Plan
from tb_nanwatch.watch.record.ring import DeviceRing
from tb_nanwatch.watch.record.stash import Stash
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import parts_of
from tb_nanwatch.watch.row.scalars import UpdateScalars
from tb_nanwatch.watch.tf_internals import WhileBodyFuncGraph, is_in_xla
from tb_nanwatch.watch.variables import handle_of, key_of, writes


class GuardedUpdates:
    """Measures and guards the updates of TensorFlow 2's steps, traced or eager.

    Attributes:
        traces: of the steps.
        stash: keeps the batch and the random numbers of a bad step.
    """

    def __init__(self, plan: Plan, *, policy: Policy) -> None:
        """Prepare for the first step.

        Args:
            plan: what is measured.
            policy: that the user chose.
        """
        self.traces, self.stash = Traces(), Stash()
        self._plan, self._policy = plan, policy

    def apply(self, inputs: StepInputs, update: Callable[[], Any], *, run: int) -> Any:
        """Measure and record one step, and run its update if the guard lets it.

        Args:
            inputs: of the step.
            update: applies the gradients.
            run: number of the run that the call is in, of a function that catches what the guard raises; 0 for none.

        Returns:
            What ``update`` returns; ``None`` if the update is in a branch.
        """
        plan, traces, graph = self._plan, self.traces, _current_graph()
        if traces.is_layout_dropped(graph):
            plan.drop_layout()
        is_more = traces.is_second(graph, inputs.variables, run=run)
        if is_more:
            plan.note_several()
            missing = plan.missing(inputs)
            if missing is not None:
                self._make_room(missing, graph)
            is_more = plan.layout is not None
        since, is_first = traces.size_of(graph), plan.layout is None
        tensors = plan.take_tensors(graph)
        ring = plan.begin_step(inputs, tensors, graph)
        if is_first:
            traces.note_layout(graph)
        before = traces.allowed_before(graph) if is_more else None
        opened = _open_row(graph, inputs, ring) if is_more and before is None else None
        scalars = UpdateScalars(inputs.scalars)
        guard = self._guard(
            inputs,
            graph,
            ring=ring,
            scalars=scalars,
            in_step=run > 0,
            is_more=is_more,
            after=before if opened is None else opened,
        )
        observation = plan.observe(
            inputs,
            tensors,
            graph,
            kept=guard.kept,
            scalars=scalars,
            measures_weights=not is_more or opened is not None,
            is_more=is_more,
            remedy=self._remedy(graph),
        )
        allowed = guard.observe(observation, inputs.step)
        result = guard.apply(allowed, update)
        self._note(graph, allowed, guard, since=since)
        traces.note_update(graph, inputs.variables, run=run, allowed=allowed)
        return result

    def accumulate(self, inputs: StepInputs) -> None:
        """Measure one micro-batch of a step whose update comes later.

        Args:
            inputs: of the micro-batch, or of a part of it whose gradients are measured by themselves.
        """
        plan, graph = self._plan, _current_graph()
        if plan.layout is None:
            plan.expect(inputs.variables)
        elif not plan.layout.accumulates:
            plan.warn_once("does not watch micro-batches that came after the first update")
            return
        plan.columns.warn_of_late(inputs, remedy=self._remedy(graph))
        own = plan.make_microbatches().handles
        kept = [] if graph is None or self._policy == "record" else keep_state(graph, excluded=own)
        is_first = plan.sum_microbatch(inputs, restore_if=partial(restore_if, kept=kept))
        if graph is not None and is_first is not None:
            self.traces.note_accumulation(graph, is_first)

    def finish_trace(self, graph: Graph) -> None:
        """Make the operations that were traced after a guard wait for it, or undo their writes with its update."""
        self.traces.finish(graph)
        self.stash.forget_offer()
        self._plan.forget_tensors()

    def is_eager_step_bad(self) -> bool:
        """Return whether an update of the last eager step was found bad."""
        allowed = self.traces.allowed_before(None)
        return allowed is not None and not bool(allowed)

    def keep_batch_after(self, batch: Any) -> None:
        """Keep the batch of a step that XLA compiled, in the graph that calls the step, if the step was bad."""
        ring = self._plan.device_ring
        if ring is not None:
            self.stash.keep_after(batch, ring.waiting())

    def _make_room(self, missing: Missing, graph: Graph | None) -> None:
        """Give the gradients of a later optimizer their cells in the row.

        Raises:
            BeginAgain: if the step must be traced again.
            SetupError: if it must be, and cannot.
        """
        if graph is not None and self._plan.has_rows():
            # The log has a layout by now. A warning names what does not fit in it.
            return
        can_begin_again = graph is not None and self.traces.can_begin_again(graph)
        is_traced_again = self.traces.is_traced_again(graph)
        if can_begin_again or is_traced_again:
            self._plan.extend(missing)
            if not is_traced_again:
                self.traces.forget_updates()
                raise BeginAgain
        elif self.traces.allows_repeated_updates(graph):
            self._plan.widen(missing)
        else:
            raise SetupError(
                "a watch must know all that a step with several optimizers updates, clips and scales before the second:"
                " call the step through Watch.step; or list every variable in Watch(variables=...), and give raw=, or a"
                " LossScaleOptimizer, to each apply_gradients or to none"
            )

    def _guard(
        self,
        inputs: StepInputs,
        graph: Graph | None,
        *,
        ring: DeviceRing,
        scalars: UpdateScalars,
        in_step: bool,
        is_more: bool,
        after: tf.Tensor | None,
    ) -> FunctionGuard:
        plan, kind = self._plan, self._kind(graph, in_step=in_step)
        if kind != "stop":
            plan.poll()
        is_clipped = plan.layout is not None and plan.layout.clip != "none"
        if graph is None:
            return FunctionGuard(kind, ring, [], after=after, is_more=is_more, is_clipped=is_clipped)
        is_whole = self.traces.has_all_microbatches(graph) if kind == "skip" else True
        return FunctionGuard(
            kind,
            ring,
            self._kept(graph, ring, restores=kind != "none"),
            after=after,
            is_more=is_more,
            is_whole=None if isinstance(is_whole, bool) else is_whole,
            is_clipped=is_clipped,
            keep_batch=partial(self._keep_drawn, graph),
            fill=_filling(scalars, inputs, graph, variables=plan.columns.variables),
        )

    def _kind(self, graph: Graph | None, *, in_step: bool) -> GuardKind:
        if self._policy == "record":
            return "none"
        if self._policy == "skip":
            return "skip"
        if self._plan.has_peers:
            # A process that left the step would leave the others waiting for it.
            return "latch"
        in_xla = graph is not None and is_in_xla(graph)
        return "latch" if in_xla or (graph is not None and not in_step) else "stop"

    def _kept(self, graph: Graph, ring: DeviceRing, *, restores: bool) -> list[KeptVariable]:
        plan = self._plan
        if not restores:
            return keep_state(graph, only={id(handle_of(variable)) for variable in plan.columns.variables})
        *_, top = with_enclosing(graph)
        step = self.traces.step_of(graph)
        if step is not top and not isinstance(top, WhileBodyFuncGraph) and writes_variables(step):
            plan.warn_once(
                "cannot put back what the step assigns outside of the function that calls apply_gradients: call it in"
                " the step itself"
            )
        own = frozenset[int]() if plan.microbatches is None else plan.microbatches.handles
        return keep_state(graph, excluded=ring.handles | own | self.stash.handles)

    def _keep_drawn(self, graph: Graph, is_quiet: tf.Tensor) -> tf.Tensor | None:
        # Each replica of a step on many devices draws for itself, and XLA has no room for tensors of unknown shape.
        is_out_of_reach = self._plan.replicas is not None or is_in_xla(graph)
        draws = None if is_out_of_reach or self.traces.step_of(graph) is not graph else Draws.in_graph(graph)
        return self.stash.keep(graph, is_quiet, draws)

    def _note(self, graph: Graph | None, allowed: tf.Tensor, guard: FunctionGuard, *, since: int) -> None:
        """Note a guard for the end of the trace, except where micro-batches come in other calls than the update.

        There the code that resets the accumulators runs after the update; do not undo it.
        """
        if graph is None:
            return
        layout = self._plan.layout
        accumulates = layout is not None and layout.accumulates
        if guard.kind == "stop" or not accumulates or self.traces.has_all_microbatches(graph) is not False:
            self.traces.note_guard(graph, allowed, guard, since=since)

    def _remedy(self, graph: Graph | None) -> str:
        """Return what a user can do about a variable that comes too late."""
        is_fit = self.traces.allows_repeated_updates(graph)
        return "call fit again" if is_fit else "list every variable in Watch(variables=...)"


def _current_graph() -> Graph | None:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _open_row(graph: Graph | None, inputs: StepInputs, ring: DeviceRing) -> tf.Tensor | None:
    """Begin a row if the update before did not run, as in a branch; return whether all that is in the row is finite.

    Returns:
        Bool scalar; ``None`` where the update before is not part of what was traced into ``graph``.
    """
    if graph is None:
        return None
    kept = keep_state(graph, only={id(ring.count_handle)})
    return ring.opened(kept[0].value, inputs.step) if kept else None


def _filling(
    scalars: UpdateScalars, inputs: StepInputs, graph: Graph, *, variables: Sequence[Any]
) -> Callable[[Sequence[Op], bool], Collection[Op]]:
    """Return the ``fill`` of a :class:`~tb_nanwatch.watch.guard.guard.FunctionGuard`."""
    before = [op for enclosing in with_enclosing(graph) for op in enclosing.get_operations()]
    written = {key_of(resource) for _, resource in writes(before)}
    written |= {id(handle_of(variable)) for variable in (*variables, *inputs.variables)}
    gradients = [value for gradient in (*inputs.gradients, *(inputs.raw or ())) for value in parts_of(gradient)]
    # A variable may stand for a gradient, such as the sum of several.
    written |= {id(handle_of(value)) for value in gradients if hasattr(value, "handle")}
    return lambda operations, is_branch: scalars.fill(
        operations,
        written,
        gradients=[value for value in gradients if tf.is_symbolic_tensor(value)],
        is_branch=is_branch,
        is_scaled=inputs.scale is not None,
    )
