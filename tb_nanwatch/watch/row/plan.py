"""The plan: what is measured of every step, fixed by the first one, and each trace of the step laid out by it."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import ClipKind, Policy, Variable
from tb_nanwatch.watch.drivers.optimizer import build
from tb_nanwatch.watch.drivers.strategy import calls_of
from tb_nanwatch.watch.graphs import Graph, Op, with_enclosing
from tb_nanwatch.watch.guard.guard import FunctionGuard, GuardKind
from tb_nanwatch.watch.guard.state import KeptVariable, keep_state, restore_if, writes_variables
from tb_nanwatch.watch.guard.trace import BeginAgain, Traces
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.owners import Owners, owners_of
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.record.draws import Draws
from tb_nanwatch.watch.record.ring import DeviceRing, HostRing, Ring
from tb_nanwatch.watch.record.stash import Stash
from tb_nanwatch.watch.row.cells import Layout, StepTensors, places_of
from tb_nanwatch.watch.row.clipping import clip_kind
from tb_nanwatch.watch.row.decoding import Decoder, RowDecoder
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.infinities import InitialInfinities, Mask, note_of
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import parts_of
from tb_nanwatch.watch.row.microbatches import DeviceMicrobatches
from tb_nanwatch.watch.row.observation import Observation, StepObservation
from tb_nanwatch.watch.row.replicas import ReplicaDecoder, Replicas, ReplicasObservation, of_each_replica
from tb_nanwatch.watch.row.scalars import UpdateScalars
from tb_nanwatch.watch.row.tensors import PendingTensors, Watched, written_statistics
from tb_nanwatch.watch.tf_internals import WhileBodyFuncGraph, is_in_xla
from tb_nanwatch.watch.variables import backward_order, handle_of, key_of, writes


class Plan:
    """What is measured of every step.

    Attributes:
        variables: in column order.
        decoder: reads the rows; ``None`` before the first step.
        recorder: the ring on the device; ``None`` before the first step.
        host_ring: the ring of a step that a session runs; ``None`` for any other step.
        tensors: watched tensors, for the step that is being traced or run.
        polls: whether an incident makes no noise of its own, so that the host has to ask after it.
        counted: whether steps are counted, for want of a step of the user's.
        has_several: whether a step has several optimizers.
        microbatches_a_step: how many steps in a row add up to one update, where the optimizer itself does that.
        replicas: that a step runs on; ``None`` where there is but one device.
        bad_replica: that was first in the bad step that was asked after last, in this process; ``None`` for none.
        is_step_inside: whether the step that is traced is what each replica runs, and not what runs the replicas.
        stash: of the batch of a bad step that took it from an iterator.
        drawn: by the bad step that was asked after last, besides its batch; ``None`` where that is not known.
        accumulation: of the micro-batches of a step; ``None`` where none was seen.
        model: that is trained, where whoever wraps the loop knows it.
        owners: where layers and variables stand in the user's models; none before the first step.
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
        self._traces = Traces()
        self._clips = self._scales = False
        self.accumulation: DeviceMicrobatches | None = None
        self.stash = Stash()
        self._infinities = InitialInfinities()
        self.drawn: Draws | None = None
        self._batches: Any = None
        self.microbatches_a_step = 1
        self._told: set[str] = set()
        self.decoder: Decoder | None = None
        self.recorder: DeviceRing | None = None
        self.host_ring: HostRing | None = None
        self.polls = False
        self.counted = True
        self.has_several = False
        self.replicas: Replicas | None = None
        self.bad_replica: int | None = None
        self.is_step_inside = False
        self._listed = bool(self.variables)
        self._dropped: tuple[Decoder, DeviceRing] | None = None
        self.model: Any = None
        self.owners = Owners()
        self._tensors_of_others: defaultdict[int, PendingTensors] = defaultdict(PendingTensors)

    @property
    def layout(self) -> Layout | None:
        """What a step on one device measures; ``None`` before the first step."""
        return None if self.decoder is None else self.decoder.layout

    @property
    def described(self) -> tuple[Variable, ...]:
        """The variables as the header lists them; before the first step without their places in the backward pass."""
        return self.layout.variables if self.layout else self._describe(self.variables)

    @property
    def ring(self) -> Ring | None:
        """The ring that the host reads; ``None`` before the first step."""
        return self.recorder if self.host_ring is None else self.host_ring

    @property
    def has_peers(self) -> bool:
        """Whether other processes take each step too."""
        return self.replicas is not None and self.replicas.workers > 1

    def guarded(self, inputs: StepInputs, update: Callable[[], Any], *, run: int) -> Any:
        """Measure and record one step, and run its update if the guard lets it.

        Args:
            inputs: what the user gave.
            update: applies the gradients.
            run: which run of a function that catches what the guard raises the call is inside of; 0 for none.

        Returns:
            What ``update`` returns, where the guard can pass it on.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        if self._traces.is_layout_dropped(graph):
            self._drop_layout()
        is_second = self._traces.is_second(graph, inputs.variables, run=run)
        if is_second:
            self.has_several = True
            self._make_room(inputs, graph)
            is_second = self.layout is not None
        since = self._traces.size_of(graph)
        self.replicas = inputs.replicas
        tensors = self._tensors_of(graph)
        if self.decoder is None or self.recorder is None:
            self.decoder, self.recorder = self._complete(inputs, tuple(tensors), graph)
            self._traces.note_layout(graph)
            self.counted = inputs.step is None
        scalars = UpdateScalars(inputs.scalars)
        before = self._traces.allowed_before(graph) if is_second else None
        opened = self._row_opened(graph, inputs, self.recorder) if is_second and before is None else None
        guard = self._guard(
            graph,
            in_step=run > 0,
            recorder=self.recorder,
            is_second=is_second,
            before=before if opened is None else opened,
        )
        if graph is not None:
            guard = replace(guard, fill=self._filling(scalars, inputs, graph))
        weighs, layout = not is_second or opened is not None, self.decoder.layout
        observe = partial(self._observation, graph=graph, layout=layout, guard=guard, scalars=scalars, weighs=weighs)
        observation = self._observed(inputs, tensors, graph=graph, observe=observe)
        allowed = guard.observe(observation, inputs.step)
        result = guard.apply(allowed, update)
        # Where micro-batches came in calls of their own, what empties the sums comes after the update, and has to stay.
        is_whole = not layout.accumulates or (graph is not None and self._traces.has_all_microbatches(graph))
        if graph is not None and (is_whole is not False or guard.kind == "stop"):
            self._traces.note_guard(graph, allowed, guard, since=since)
        self._traces.note_update(graph, inputs.variables, run=run, allowed=allowed)
        return result

    def accumulate(self, inputs: StepInputs) -> None:
        """Measure one micro-batch of a step whose update comes later.

        Args:
            inputs: what the user gave: of all variables, or of some whose gradients are measured by themselves.
        """
        if self.layout is None:
            self.expect(inputs.variables)
        elif not self.layout.accumulates:
            self._say_once("does not watch micro-batches that came after the first update")
            return
        self._check_variables(inputs)
        with tf.init_scope():
            if self.accumulation is None:
                self.accumulation = DeviceMicrobatches(columns=len(self.variables))
            self.accumulation.widen(len(self.variables))
        kept: list[KeptVariable] = []
        if not tf.executing_eagerly():
            graph = tf.compat.v1.get_default_graph()
            kept = [] if self._policy == "record" else keep_state(graph, excluded=self.accumulation.handles)
        columns = {id(variable): column for column, variable in enumerate(self.variables)}
        watched = [(gradient, columns[id(one)]) for gradient, one in inputs.pairs if id(one) in columns]
        if watched:
            gradients, places = zip(*watched, strict=True)
            is_first = self.accumulation.add(
                gradients, places, loss=inputs.loss, restore_if=partial(restore_if, kept=kept)
            )
            if not tf.executing_eagerly():
                self._traces.note_accumulation(tf.compat.v1.get_default_graph(), is_first)

    def begin_eager(self) -> None:
        """Know that all updates belong together that come before this is called again."""
        self._traces.begin_eager()

    def is_eager_step_bad(self) -> bool:
        """Return whether an update of the eager step that came last was found bad."""
        allowed = self._traces.allowed_before(None)
        return allowed is not None and not bool(allowed)

    def be_lenient(self, graph: Graph) -> None:
        """Know a graph as that of a step whose author cannot be asked to write it for a watch."""
        self._traces.allow_repeated_updates(graph)

    def know_model(self, model: Any) -> None:
        """Know the model that is trained: it tells where layers and variables stand."""
        self.model = model
        self.owners = owners_of((), model)

    def name_of_layer(self, layer: Any) -> str:
        """Return the name of a Keras layer, apart from all others of the model."""
        return self.owners.layer(layer) or str(layer.path or layer.name)

    def expect(self, variables: Sequence[Any]) -> None:
        """Watch variables before any that the first update brings."""
        if self.layout is None:
            known = {id(variable) for variable in self.variables}
            self.variables += [variable for variable in variables if id(variable) not in known]

    def tensors_of(self, replica: int) -> PendingTensors:
        """Return the watched tensors of a replica of this process."""
        return self._tensors_of_others[replica] if replica else self.tensors

    def pass_over(self, strategy: Any) -> None:
        """Say that a strategy's steps are not watched."""
        self._say_once(
            f"does not watch a step that {type(strategy).__name__} runs, and lets it train as it is: it watches those"
            " of MirroredStrategy, MultiWorkerMirroredStrategy and OneDeviceStrategy, outside of XLA"
        )

    def pass_over_microbatches(self) -> None:
        """Say that micro-batches of a step on many devices are not watched."""
        self._say_once("does not watch the micro-batches of a step on many devices; it watches their total")

    def _keep_drawn(self, graph: Graph, is_quiet: tf.Tensor) -> tf.Tensor | None:
        # Of a step on many devices each replica draws its own, and XLA has no room for what has no known shape.
        is_out_of_reach = self.replicas is not None or is_in_xla(graph)
        drawn = None if is_out_of_reach or self._traces.step_of(graph) is not graph else Draws.in_graph(graph)
        return self.stash.keep(graph, is_quiet, drawn)

    def take_drawn(self) -> None:
        """Take what was kept of a bad step: :attr:`drawn`, and its batch for :meth:`take_batch`."""
        self._batches, self.drawn = self.stash.take()

    def take_batch(self) -> Any:
        """Return the batch that was kept of the bad step; ``None`` where the bad one is another process's."""
        batches, self._batches = self._batches, None
        which = self._bad_here()
        return None if batches is None or which is None or which >= len(batches) else batches[which]

    def call_of_bad(self, call: Call) -> Call | None:
        """Return the call of the bad step as the bad replica made it; ``None`` where that is another process's."""
        which = self._bad_here()
        return None if which is None else self.calls_of(call)[which]

    def calls_of(self, call: Call) -> list[Call]:
        """Return a call as each replica of this process makes it."""
        return [call] if self.replicas is None else calls_of(call, self.replicas)

    def _bad_here(self) -> int | None:
        if not isinstance(self.decoder, ReplicaDecoder) or self.recorder is None:
            return 0
        self.bad_replica = self.decoder.first_bad_here(self.recorder.incident_counts())
        return self.bad_replica

    def begin_trace(self, graph: Graph, *, can_begin_again: bool) -> None:
        """Know a graph as that of a whole step."""
        self._traces.begin(graph, can_begin_again=can_begin_again)

    def prepare(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Build an optimizer before its update is traced: that may be in a branch, which can make no slots."""
        graph = tf.compat.v1.get_default_graph()
        build(optimizer, variables, can_begin_again=lambda: self._traces.can_begin_again(graph))

    def finish_trace(self, graph: Graph) -> None:
        """Make what was traced after a guard wait for it, or undone with the update."""
        self._traces.finish(graph)
        self.stash.forget_offer()
        self.tensors.take(None)
        self._tensors_of_others.clear()

    def _make_room(self, inputs: StepInputs, graph: Graph | None) -> None:
        """See that a second optimizer's gradients have their cells in the row."""
        can_begin_again = graph is not None and self._traces.can_begin_again(graph)
        known = {id(variable) for variable in self.variables}
        besides = [variable for variable in inputs.variables if id(variable) not in known]
        clips = inputs.raw is not None and self.layout is not None and self.layout.clip == "none"
        scales = inputs.scale is not None and self.layout is not None and not self.layout.scale
        if not besides and not clips and not scales:
            return
        if graph is not None and self._has_rows():
            # The log has a layout by now; what does not fit in it is named in a warning.
            return
        is_traced_again = self._traces.is_traced_again(graph)
        if not can_begin_again and not is_traced_again:
            if self._traces.allows_repeated_updates(graph):
                self._widen(besides, clips=clips, scales=scales)
                return
            raise SetupError(
                "a watch must know all that a step with several optimizers updates, clips and scales before the second:"
                " call the step through Watch.step; or list every variable in Watch(variables=...), and give raw=, or a"
                " LossScaleOptimizer, to each apply_gradients or to none"
            )
        self.variables += besides
        self._clips, self._scales = self._clips or clips, self._scales or scales
        self.decoder = self.recorder = None
        if not is_traced_again:
            self._traces.forget_updates()
            raise BeginAgain

    def _has_rows(self) -> bool:
        with tf.init_scope():
            return self.recorder is not None and self.recorder.rows_written() > 0

    def _widen(self, besides: Sequence[Any], *, clips: bool, scales: bool) -> None:
        """Make room in the row of an eager step, if it is the first, and keep what is in it."""
        decoder, recorder = self.decoder, self.recorder
        if not tf.executing_eagerly() or decoder is None or recorder is None or recorder.rows_written() > 1:
            return
        self.variables += besides
        narrow = decoder.layout
        clip: ClipKind = "other" if clips else narrow.clip
        described = describe(self.variables, [None] * len(self.variables))
        wide = replace(narrow, variables=described, clip=clip, scale=narrow.scale or scales)
        self.decoder = RowDecoder(wide)
        self.recorder = self._recorder_of(self.decoder)
        places = {cell: place for place, cell in enumerate(narrow.cells)}
        self.recorder.take_over(recorder, [*map(places.get, wide.cells)])

    def _recorder_of(self, decoder: Decoder) -> DeviceRing:
        cells = decoder.cells
        return DeviceRing(window=self._window, cells=len(cells), added=places_of(cells, "loss"))

    def _drop_layout(self) -> None:
        """Have the layout made anew: TensorFlow runs another trace than the one that fixed it."""
        if self.decoder is not None and self.recorder is not None:
            self._dropped = self.decoder, self.recorder
        self.decoder = self.recorder = None

    def _complete(
        self, inputs: StepInputs, tensors: tuple[str, ...], graph: Graph | None
    ) -> tuple[Decoder, DeviceRing]:
        known = {id(variable) for variable in self.variables}
        besides = [variable for _, variable in inputs.pairs if id(variable) not in known]
        if self._listed and besides:
            names = ", ".join(variable.name for variable in self._describe(besides))
            warnings.warn(f"tb_nanwatch watches variables that are not among those it was given: {names}", stacklevel=2)
        self.variables += besides
        self.owners = owners_of(self.variables, self.model)
        described = self._describe(self.variables, backward_order(graph, self.variables))
        state = tuple(self._written(graph, described, inputs)[0])
        self.note_infinities(described, [self._infinities.mask_of(handle_of(variable)) for variable in self.variables])
        layout = Layout(
            described,
            tensors,
            inputs.loss is not None,
            self._clip_kind(inputs),
            state,
            scale=inputs.scale is not None or self._scales,
            skips=self._policy == "skip",
            accumulates=self.accumulation is not None,
            scalars=True,
        )
        decoder: Decoder = RowDecoder(layout) if inputs.replicas is None else inputs.replicas.decoder(layout)
        if self._dropped is not None and self._dropped[0] == decoder:
            # Where TensorFlow needs the dropped trace to make the step's variables, that is what runs first.
            return self._dropped
        with tf.init_scope():
            return decoder, self._recorder_of(decoder)

    def _describe(self, variables: Sequence[Any], orders: Sequence[int | None] | None = None) -> tuple[Variable, ...]:
        return describe(variables, orders or [None] * len(variables), self.owners)

    @property
    def last_values(self) -> Sequence[Any]:
        """What gives each watched variable's value, without the infinities that are meant."""
        return [self._infinities.checked(variable) for variable in self.variables]

    def _value(self, variable: Any, kept: Mapping[int, tf.Tensor]) -> tf.Tensor:
        handle = handle_of(variable)
        value = kept.get(id(handle)) if kept else None
        return self._infinities.excuse(tf.convert_to_tensor(variable) if value is None else value, handle)

    def note_infinities(self, described: Sequence[Variable], masks: Iterable[Mask | None]) -> None:
        """Warn of trained variables that were infinite as watching began.

        Args:
            described: what the header says of each.
            masks: which elements of each were; ``None`` where none was.
        """
        for of, mask in zip(described, masks, strict=True):
            if mask is not None:
                self._say_once(note_of(mask, of.name))

    def _clip_kind(self, inputs: StepInputs) -> ClipKind:
        if inputs.raw is None:
            return "other" if self._clips else "none"
        return clip_kind(inputs.raw, [gradient for gradient, _ in inputs.pairs])

    def _observation(
        self,
        inputs: StepInputs,
        tensors: dict[str, Watched],
        *,
        graph: Graph | None,
        layout: Layout,
        guard: FunctionGuard,
        scalars: UpdateScalars,
        weighs: bool,
        replica: int = 0,
    ) -> StepObservation:
        loss = inputs.loss
        if layout.loss and loss is None:
            if not guard.is_more:
                raise SetupError("loss must be given to every apply_gradients of a watch, or to none; this has none")
            loss = tf.constant(0.0)
        clipped = self._by_column([gradient for gradient, _ in inputs.pairs], inputs)
        raw = clipped if inputs.raw is None else self._by_column(inputs.raw, inputs)
        self._check_watched(inputs, tensors, layout)
        written = self._written(graph, layout.variables, inputs)[replica]
        # What the forward pass assigned has another value by now than the step began with.
        kept = {id(kept.handle): kept.value for kept in guard.kept}
        tensors_of_step = StepTensors(
            raw=raw,
            clipped=None if layout.clip == "none" else clipped,
            # Every replica has the same.
            weights=[None if not weighs or replica else self._value(variable, kept) for variable in self.variables],
            watched=[*map(tensors.get, layout.tensors)],
            loss=loss if layout.loss else None,
            state=[*map(written.get, layout.state)],
            is_unscaled=inputs.is_unscaled,
            microbatches=self._microbatches(layout, is_more=guard.is_more),
            scalars=scalars if layout.scalars else None,
            scale=(tf.constant(1.0) if inputs.scale is None else inputs.scale) if layout.scale else None,
        )
        return StepObservation(tensors_of_step)

    def _filling(
        self, scalars: UpdateScalars, inputs: StepInputs, graph: Graph
    ) -> Callable[[Sequence[Op], bool], Collection[Op]]:
        """Return the ``fill`` of a :class:`~tb_nanwatch.watch.guard.guard.FunctionGuard`."""
        before = [op for one in with_enclosing(graph) for op in one.get_operations()]
        written = {key_of(resource) for _, resource in writes(before)}
        written |= {id(handle_of(variable)) for variable in (*self.variables, *inputs.variables)}
        gradients = [value for gradient, _ in inputs.pairs for value in parts_of(gradient)]
        gradients += [value for gradient in inputs.raw or () for value in parts_of(gradient)]
        # A variable may stand for a gradient, such as the sum of several.
        written |= {id(handle_of(value)) for value in gradients if hasattr(value, "handle")}
        return lambda operations, is_branch: scalars.fill(
            operations,
            written,
            gradients=[value for value in gradients if tf.is_symbolic_tensor(value)],
            is_branch=is_branch,
            is_scaled=inputs.scale is not None,
        )

    def _observed(
        self,
        inputs: StepInputs,
        tensors: dict[str, Watched],
        *,
        graph: Graph | None,
        observe: Callable[..., StepObservation],
    ) -> Observation:
        if inputs.replicas is None:
            return observe(inputs, tensors)
        parts = []
        for place, (given, device) in enumerate(zip([inputs, *inputs.others], inputs.replicas.devices, strict=True)):
            own = self.tensors_of(place).take(graph)[0] if place else tensors
            with tf.device(device):
                parts.append(observe(given, own, replica=place))
        return ReplicasObservation(inputs.replicas, parts)

    def _written(
        self, graph: Graph | None, described: Sequence[Variable], inputs: StepInputs
    ) -> list[dict[str, tf.Tensor]]:
        results = [part for one in (inputs, *inputs.others) for part in _results(one)]
        found = written_statistics(
            graph, self.variables, described, results=results, owners=self.owners, infinities=self._infinities
        )
        return [found] if self.replicas is None else of_each_replica(found, len(self.replicas.devices))

    def _microbatches(self, layout: Layout, *, is_more: bool) -> tf.Tensor | None:
        if not layout.accumulates or self.accumulation is None:
            return None
        return tf.fill([len(self.variables) + 3], ABSENT) if is_more else self.accumulation.cells(len(self.variables))

    def _by_column(self, gradients: Sequence[Any], inputs: StepInputs) -> list[Any]:
        of = {id(variable): gradient for gradient, (_, variable) in zip(gradients, inputs.pairs, strict=True)}
        return [of.get(id(variable)) for variable in self.variables]

    def _guard(
        self, graph: Graph | None, *, in_step: bool, recorder: DeviceRing, is_second: bool, before: tf.Tensor | None
    ) -> FunctionGuard:
        kind = self._guard_kind(graph, in_step=in_step)
        self.polls = self.polls or kind != "stop"
        kept = [] if graph is None else self._kept(graph, recorder, is_put_back=kind != "none")
        keep_batch = None if graph is None else partial(self._keep_drawn, graph)
        whole = self._traces.has_all_microbatches(graph) if graph is not None and kind == "skip" else True
        return FunctionGuard(
            kind,
            recorder,
            kept,
            after=before,
            is_more=is_second,
            is_whole=None if isinstance(whole, bool) else whole,
            is_clipped=self.layout is not None and self.layout.clip != "none",
            keep_batch=keep_batch,
        )

    @staticmethod
    def _row_opened(graph: Graph | None, inputs: StepInputs, recorder: DeviceRing) -> tf.Tensor | None:
        """Have a row where the update before may not have run, as in a branch; return whether what is in it is finite.

        Returns:
            Bool scalar; ``None`` where the update before is no part of what was traced into ``graph``.
        """
        if graph is None:
            return None
        kept = keep_state(graph, only={id(recorder.count_handle)})
        return recorder.opened(kept[0].value, inputs.step) if kept else None

    def _guard_kind(self, graph: Graph | None, *, in_step: bool) -> GuardKind:
        if self._policy == "record":
            return "none"
        if self._policy == "skip":
            return "skip"
        if self.has_peers:
            # A process that left the step would leave the others waiting for it.
            return "latch"
        in_xla = graph is not None and is_in_xla(graph)
        return "latch" if in_xla or (graph is not None and not in_step) else "stop"

    def _kept(self, graph: Graph, recorder: DeviceRing, *, is_put_back: bool) -> list[KeptVariable]:
        if not is_put_back:
            return keep_state(graph, only={id(handle_of(variable)) for variable in self.variables})
        *_, top = with_enclosing(graph)
        step = self._traces.step_of(graph)
        if step is not top and not isinstance(top, WhileBodyFuncGraph) and writes_variables(step):
            self._say_once(
                "cannot put back what the step assigns outside of the function that calls apply_gradients: call it in"
                " the step itself"
            )
        own = frozenset[int]() if self.accumulation is None else self.accumulation.handles
        return keep_state(graph, excluded=recorder.handles | own | self.stash.handles)

    def _tensors_of(self, graph: Graph | None) -> dict[str, Watched]:
        found, others = self.tensors.take(graph)
        if len(others) == 1:
            self._say_once(
                f"does not watch tensor {others[0]!r}: it is made in another function than apply_gradients is in"
            )
        elif others:
            # A recurrent layer calls its cell in a loop, once for each trace of it.
            self._say_once(
                "does not watch tensors that are made in another function than apply_gradients is in, such as a loop's"
            )
        return found

    def _check_variables(self, inputs: StepInputs) -> None:
        known = {id(variable) for variable in self.variables}
        late = [one for gradient, one in inputs.pairs if gradient is not None and id(one) not in known]
        if late:
            these = "variable" if len(late) == 1 else "variables"
            graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
            remedy = (
                "call fit again"
                if self._traces.allows_repeated_updates(graph)
                else "list every variable in Watch(variables=...)"
            )
            self._say_once(
                f"does not watch {these} {_names(late)}: {'it' if len(late) == 1 else 'they'} came after the first"
                f" step; {remedy}"
            )

    def _check_watched(self, inputs: StepInputs, tensors: dict[str, Watched], layout: Layout) -> None:
        self._check_variables(inputs)
        for name in tensors:
            if name not in layout.tensors:
                self._say_once(f"does not watch tensor {name!r}: it came after the first step")
        if inputs.raw is not None and layout.clip == "none":
            self._say_once("does not watch clipping that came after the first step: clip from there on, and give raw=")

    def _say_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(f"tb_nanwatch {what}", stacklevel=2)


def _results(inputs: StepInputs) -> list[tf.Tensor]:
    """Return the loss and the gradients."""
    gradients = [*(gradient for gradient, _ in inputs.pairs), *(inputs.raw or ())]
    loss = [] if inputs.loss is None else [inputs.loss]
    return [*loss, *(part for gradient in gradients for part in parts_of(gradient))]


def _names(variables: Sequence[Any]) -> str:
    return ", ".join(repr(described.name) for described in describe(variables, [None] * len(variables)))
