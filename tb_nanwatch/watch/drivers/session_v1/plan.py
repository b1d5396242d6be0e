"""A step of a session's graph, built: the operations that measure it, its guard and its update."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.drivers.session_v1.microbatches import Microbatches
from tb_nanwatch.watch.graphs import Graph, Op, Tensor, ancestors, is_at_top
from tb_nanwatch.watch.guard.pivot import PivotGuard
from tb_nanwatch.watch.guard.state import SessionState
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.record.intake import Intake, takes_anew
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.record.ring import HostRing
from tb_nanwatch.watch.row.cells import Layout
from tb_nanwatch.watch.row.clipping import clip_kind
from tb_nanwatch.watch.row.columns import tensors_of_step, values_at_start
from tb_nanwatch.watch.row.infinities import SessionInfinities
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import dense_values, without_infinity
from tb_nanwatch.watch.row.observation import StepObservation
from tb_nanwatch.watch.row.scalars import UpdateScalars
from tb_nanwatch.watch.row.tensors import is_statistic, may_be_infinite
from tb_nanwatch.watch.tf_internals import has_context, is_reference, open_control_inputs
from tb_nanwatch.watch.variables import backward_order, handle_of, read_first, variable_writes


@dataclass(frozen=True, eq=False)
class Built:
    """A step that is built in its graph.

    Attributes:
        graph: of the step.
        inputs: the arguments of ``apply_gradients``.
        tensors: watched tensors, by name.
        statistics: tensors that the step writes to layers' statistics, by name of the variable.
        guard: of the step.
        intake: what enters a run in other ways than its feed.
        layout: of its row.
        ring: holds the rows that the runs fetch.
        train_op: runs the update if the step is finite.
        update_ops: operations that the optimizer built.
        microbatches: of the step, each in a run of its own before the update; ``None`` where there are none.
        infinities: that variables held before training.
    """

    graph: Graph
    inputs: StepInputs
    tensors: dict[str, tf.Tensor]
    statistics: dict[str, tf.Tensor]
    guard: PivotGuard
    intake: Intake
    layout: Layout
    ring: HostRing
    train_op: Op
    update_ops: Sequence[Op]
    microbatches: Microbatches | None
    infinities: SessionInfinities

    @property
    def feed(self) -> Mapping[Any, Any] | None:
        """What a run of the update is fed in addition to the user's feed; ``None`` for nothing."""
        return {**({} if self.microbatches is None else self.microbatches.feed), **self.infinities.feed} or None


def build(
    plan: Plan,
    inputs: StepInputs,
    update: Callable[[], Any],
    *,
    options: LoopOptions,
    step: Any,
    microbatch: StepInputs | None,
) -> Built:
    """Build a step: the operations that measure it, its guard and its update.

    Args:
        plan: of the watch; it adopts what the step measures.
        inputs: the arguments of ``apply_gradients``.
        update: applies the gradients.
        options: the user's.
        step: the variable that counts steps; ``None`` if the watch counts them.
        microbatch: the arguments of ``accumulate``; ``None`` if it was not called.

    Raises:
        SetupError: if the step stands in a branch, a loop or a function.
    """
    graph = tf.compat.v1.get_default_graph()
    _check_place(graph, inputs)
    variables = _watched(plan, inputs)
    own = {_name_of(variable) for variable in variables}
    find = partial(_intake, graph, watched=own, options=options)
    microbatches = _microbatches(graph, microbatch, variables, intake_of=find)
    tensors = _tensors(plan, graph, run=None if microbatches is None else _run_of(graph, inputs, microbatches))
    needed = _needed(graph, inputs, tensors)
    described = describe(variables, backward_order(graph, variables))
    # With micro-batches, the run of the update has no forward pass that writes statistics.
    written = {} if microbatches is not None else _written_values(graph, needed)
    written = {
        name: pair for name, pair in written.items() if pair[0].name not in own and is_statistic(name, described)
    }
    free = _free(inputs, written)
    statistics = {name: without_infinity(value) if name in free else value for name, (_, value) in written.items()}
    layout = Layout(
        described,
        tuple(tensors),
        inputs.loss is not None,
        clip_kind(inputs.raw, inputs.gradients),
        tuple(statistics),
        skips=options.policy == "skip",
        accumulates=microbatch is not None,
        scale=inputs.scale is not None,
        scalars=True,
    )
    state = SessionState.of(graph, needed)
    number = None if step is None else read_first(graph, handle_of(step))
    trained = [handle_of(variable) for variable in variables]
    infinities = SessionInfinities(graph, [*trained, *(source for source, _ in written.values())])
    begun = [infinities.excuse(value, written[name][0], is_whole=True) for name, value in statistics.items()]
    step_tensors = tensors_of_step(
        inputs,
        layout,
        variables,
        weights=values_at_start(variables, state.ordered, infinities),
        watched=[*tensors.values()],
        state=begun,
        microbatches=None if microbatches is None else microbatches.cells,
        scalars=UpdateScalars(),
        key=_name_of,
    )
    intake = find([*needed, *statistics.values()]).without(state.names)
    guard = PivotGuard(state, extra=intake.packed, withholds=options.withholds, trained=trained)
    allowed = guard.observe(StepObservation(step_tensors), number)
    before = len(graph.get_operations())
    train_op = guard.apply(allowed, update)
    ring = HostRing(window=options.window, cells=len(layout.cells))
    plan.adopt(variables, layout, ring, counted=step is None)
    update_ops = graph.get_operations()[before:]
    return Built(
        graph,
        inputs,
        tensors,
        statistics,
        guard,
        intake,
        layout,
        ring,
        train_op,
        update_ops,
        microbatches,
        infinities,
    )


def _free(inputs: StepInputs, written: Mapping[str, tuple[tf.Tensor, tf.Tensor]]) -> set[str]:
    """Return the names of statistics that may be Inf because neither the loss nor a gradient depends on them."""
    read = ancestors(inputs.results, by_control=False)
    return {
        name
        for name, (source, value) in written.items()
        if may_be_infinite(name) and source.op not in read and value.op not in read
    }


def _check_place(graph: Graph, inputs: StepInputs) -> None:
    if graph.building_function or has_context(graph):
        raise SetupError(
            "apply_gradients must stand in the graph of a session itself, and not in a branch, a loop or a tf.function"
            " there; take it out"
        )
    gradients = [*inputs.gradients, *(inputs.raw or ())]
    values = [value for gradient in gradients if (value := dense_values(gradient)) is not None]
    for value in [*values, *([] if inputs.loss is None else [inputs.loss])]:
        if not is_at_top(value, graph):
            raise SetupError(
                f"gradients and the loss must be of the graph that apply_gradients is called in; {value.name!r} is"
                " made in another graph, or inside a branch or a loop"
            )


def _watched(plan: Plan, inputs: StepInputs) -> list[Any]:
    known = {_name_of(variable) for variable in plan.columns.variables}
    others = [variable for variable in inputs.variables if _name_of(variable) not in known]
    if known and others:
        names = ", ".join(variable.name for variable in describe(others, [None] * len(others)))
        warnings.warn(f"tb_nanwatch watches variables that are not among those it was given: {names}", stacklevel=2)
    return [*plan.columns.variables, *others]


def _name_of(variable: Any) -> str:
    return str(handle_of(variable).name)


def _intake(graph: Graph, needed: Sequence[Any], *, watched: Collection[str], options: LoopOptions) -> Intake:
    """Return the tensors through which values enter, as far as saving the batch or a replay needs them."""
    found = Intake.of(graph, ancestors(needed), watched=watched)
    if options.replay and options.withholds:
        return found
    return Intake(found.elements) if options.save_batch else Intake()


def _microbatches(
    graph: Graph, inputs: StepInputs | None, variables: Sequence[Any], *, intake_of: Callable[[list[Any]], Intake]
) -> Microbatches | None:
    if inputs is None:
        return None
    _check_place(graph, inputs)
    gradients, _ = inputs.in_columns(variables, key=_name_of)
    return Microbatches.of(graph, inputs, gradients, intake_of=intake_of)


def _run_of(graph: Graph, inputs: StepInputs, microbatches: Microbatches) -> set[Op]:
    """Return the operations that a run of the update alone executes before the guard.

    Raises:
        SetupError: if a micro-batch is run with it.
    """
    run = ancestors(_needed(graph, inputs, {}))
    if microbatches.is_run_by(run):
        raise SetupError(
            "in a graph of TensorFlow 1, apply_gradients must be given a total that was added up in earlier runs; this"
            " one is computed from the micro-batch's gradients in the same run: feed it, or keep it in variables"
        )
    return run


def _tensors(plan: Plan, graph: Graph, *, run: set[Op] | None) -> dict[str, tf.Tensor]:
    found, others = plan.tensors_of(0).take(graph)
    inside = [name for name, tensor in found.items() if not is_at_top(tensor, graph)]
    of_microbatch = [name for name, tensor in found.items() if run is not None and ancestors([tensor]) - run]
    for name in of_microbatch:
        warnings.warn(f"tb_nanwatch does not watch tensor {name!r}: it is of a micro-batch", stacklevel=2)
        del found[name]
    for name in (*others, *inside):
        warnings.warn(
            f"tb_nanwatch does not watch tensor {name!r}: it is made in a branch, a loop or a function", stacklevel=2
        )
    return {name: tensor for name, tensor in found.items() if name not in inside}


def _needed(graph: Graph, inputs: StepInputs, tensors: dict[str, tf.Tensor]) -> list[Any]:
    """Return the operations and tensors that the guard waits for."""
    gradients = [dense_values(gradient) for gradient in (*inputs.gradients, *(inputs.raw or ()))]
    given = [*gradients, inputs.loss, *tensors.values()]
    return [*(tensor for tensor in given if tensor is not None), *open_control_inputs(graph)]


def _written_values(graph: Graph, needed: Iterable[Any]) -> dict[str, tuple[Tensor, tf.Tensor]]:
    """Return the last tensor that the step writes to each variable: its new value, or what is added to it.

    Operations of ``UPDATE_OPS`` count only if they use values of this step: others may belong to another network.

    Args:
        graph: of the step.
        needed: operations and tensors that the guard waits for.

    Returns:
        By name of the variable, its handle and that tensor.
    """
    found: dict[str, tuple[Tensor, tf.Tensor]] = {}
    updates = graph.get_collection(tf.compat.v1.GraphKeys.UPDATE_OPS)
    first = ancestors(needed)
    for op, source in _writes_in_order(graph, ancestors([*needed, *updates])):
        if not has_context(op) and (op in first or not _has_other_inputs(op, first)):
            values = [tensor for tensor in op.inputs if tensor.dtype.is_floating and not is_reference(tensor)]
            found.update((str(source.op.name), (source, value)) for value in values)
    return found


def _has_other_inputs(op: Op, first: set[Op]) -> bool:
    """Return whether the inputs of an operation read or write anything that the step itself does not."""
    others = ancestors(op.inputs) - first
    takes = any(other.type == "Placeholder" or takes_anew(other) for other in others)
    return takes or any(True for _ in variable_writes(others))


def _writes_in_order(graph: Graph, operations: set[Op]) -> list[tuple[Op, Tensor]]:
    return list(variable_writes(op for op in graph.get_operations() if op in operations))
