"""The plan: what is measured of every step. The first step fixes it, and every later trace follows it."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from tb_nanwatch.schema.records import ClipKind, Policy, Variable
from tb_nanwatch.watch.graphs import Graph
from tb_nanwatch.watch.record.ring import DeviceRing, HostRing, Ring
from tb_nanwatch.watch.row.cells import Layout, places_of
from tb_nanwatch.watch.row.clipping import clip_kind
from tb_nanwatch.watch.row.columns import Columns, tensors_of_step
from tb_nanwatch.watch.row.decoding import Decoder, RowDecoder
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.microbatches import DeviceMicrobatches
from tb_nanwatch.watch.row.observation import Observation, StepObservation
from tb_nanwatch.watch.row.replicas import Replicas, ReplicasObservation
from tb_nanwatch.watch.row.scalars import UpdateScalars
from tb_nanwatch.watch.row.tensors import PendingTensors, Watched

if TYPE_CHECKING:
    from tb_nanwatch.watch.guard.state import KeptVariable


class Missing(NamedTuple):
    """What a later optimizer of a step needs in the row and the layout lacks.

    Attributes:
        variables: that it updates.
        clips: whether it clips, and no optimizer before it does.
        scales: whether its loss is scaled, and no loss before it is.
    """

    variables: Sequence[Any]
    clips: bool
    scales: bool


class Plan:
    """What is measured of every step of a watch."""

    def __init__(self, variables: Iterable[Any], *, window: int, policy: Policy) -> None:
        """Prepare a plan, which the first step completes.

        Args:
            variables: in the order in which they are shown; may be empty.
            window: how many rows the ring holds.
            policy: that the user chose.
        """
        self._columns = Columns(variables, warn=self.warn_once)
        self._window, self._policy = window, policy
        self._clips = self._scales = False
        self._tensors: defaultdict[int, PendingTensors] = defaultdict(PendingTensors)
        self._microbatches: DeviceMicrobatches | None = None
        self._microbatches_a_step = 1
        self._decoder: Decoder | None = None
        self._device_ring: DeviceRing | None = None
        self._host_ring: HostRing | None = None
        self._dropped: tuple[Decoder, DeviceRing] | None = None
        self._counted, self._has_several, self._polls = True, False, False
        self._replicas: Replicas | None = None
        self._warnings: set[str] = set()

    @property
    def columns(self) -> Columns:
        """The watched variables."""
        return self._columns

    @property
    def described(self) -> tuple[Variable, ...]:
        """The header's entries for the variables; before the first step without their places in the backward pass."""
        return self.layout.variables if self.layout else self._columns.described()

    @property
    def decoder(self) -> Decoder | None:
        """Reads the rows; ``None`` before the first step."""
        return self._decoder

    @property
    def layout(self) -> Layout | None:
        """What a step on one device measures; ``None`` before the first step."""
        return None if self._decoder is None else self._decoder.layout

    @property
    def device_ring(self) -> DeviceRing | None:
        """The ring in device memory; ``None`` before the first step, and for a step that a session runs."""
        return self._device_ring

    @property
    def ring(self) -> Ring | None:
        """The ring that the host reads; ``None`` before the first step."""
        return self._device_ring if self._host_ring is None else self._host_ring

    @property
    def counted(self) -> bool:
        """Whether the watch counts steps, because the user gives no step."""
        return self._counted

    @property
    def polls(self) -> bool:
        """Whether the host has to ask for incidents, because a bad step raises no error."""
        return self._polls

    @property
    def has_several(self) -> bool:
        """Whether a step has several optimizers."""
        return self._has_several

    @property
    def microbatches(self) -> DeviceMicrobatches | None:
        """The micro-batches of a step in device memory; ``None`` if there was none yet."""
        return self._microbatches

    @property
    def microbatches_a_step(self) -> int:
        """How many steps in a row add up to one update, where the optimizer adds them up."""
        return self._microbatches_a_step

    @property
    def replicas(self) -> Replicas | None:
        """The replicas that a step runs on; ``None`` for one device."""
        return self._replicas

    @property
    def has_peers(self) -> bool:
        """Whether other processes run each step too."""
        return self._replicas is not None and self._replicas.workers > 1

    def expect(self, variables: Sequence[Any]) -> None:
        """Watch variables before any that the first update brings."""
        if self._decoder is None:
            self._columns.add(variables)

    def expect_model(self, model: Any, *, microbatches: int) -> None:
        """Watch the variables of a model, and name layers and variables by their place in it.

        Args:
            model: of Keras.
            microbatches: how many steps in a row add up to one update.
        """
        self._microbatches_a_step = microbatches
        self._columns.know_model(model)
        self.expect(model.trainable_variables)

    def tensors_of(self, replica: int) -> PendingTensors:
        """Return the watched tensors of a replica of this process."""
        return self._tensors[replica]

    def forget_tensors(self) -> None:
        """Drop the watched tensors of a trace that is finished."""
        self._tensors.clear()

    def poll(self) -> None:
        """Have the host ask for incidents from here on."""
        self._polls = True

    def warn_once(self, text: str) -> None:
        """Warn the user, unless the same warning was given before."""
        if text not in self._warnings:
            self._warnings.add(text)
            warnings.warn(f"tb_nanwatch {text}", stacklevel=2)

    def begin_step(self, inputs: StepInputs, tensors: Mapping[str, Watched], graph: Graph | None) -> DeviceRing:
        """Fix what is measured if this is the first step, and return the ring.

        Args:
            inputs: of the step.
            tensors: watched tensors by name.
            graph: that the step is traced into; ``None`` for an eager step.
        """
        self._replicas = inputs.replicas
        if self._decoder is None or self._device_ring is None:
            self._decoder, self._device_ring = self._complete(inputs, tensors, graph)
            self._counted = inputs.step is None
        return self._device_ring

    def adopt(self, variables: Sequence[Any], layout: Layout, ring: HostRing, *, counted: bool) -> None:
        """Take over what a step measures that a session runs.

        Args:
            variables: in column order.
            layout: of its rows.
            ring: on the host.
            counted: whether the watch counts steps.
        """
        self._columns.replace(variables)
        self._decoder, self._host_ring, self._counted = RowDecoder(layout), ring, counted
        self._polls = True

    def note_several(self) -> None:
        """Note that a step has several optimizers."""
        self._has_several = True

    def missing(self, inputs: StepInputs) -> Missing | None:
        """Return what the row lacks for a later optimizer of the step; ``None`` if it lacks nothing."""
        layout = self.layout
        missing = Missing(
            self._columns.unknown(inputs.variables),
            clips=inputs.raw is not None and layout is not None and layout.clip == "none",
            scales=inputs.scale is not None and layout is not None and not layout.scale,
        )
        return missing if any(missing) else None

    def has_rows(self) -> bool:
        """Return whether a step has left a row."""
        with tf.init_scope():
            return self._device_ring is not None and self._device_ring.rows_written() > 0

    def extend(self, missing: Missing) -> None:
        """Plan for more in the row, and have the next step fix the layout again."""
        self._columns.add(missing.variables)
        self._clips, self._scales = self._clips or missing.clips, self._scales or missing.scales
        self._decoder = self._device_ring = None

    def widen(self, missing: Missing) -> None:
        """Make room in the row of an eager step if it is the first step, and keep what is in the row."""
        decoder, ring = self._decoder, self._device_ring
        if not tf.executing_eagerly() or decoder is None or ring is None or ring.rows_written() > 1:
            return
        self._columns.add(missing.variables)
        narrow = decoder.layout
        clip: ClipKind = "other" if missing.clips else narrow.clip
        wide = replace(narrow, variables=self._columns.described(), clip=clip, scale=narrow.scale or missing.scales)
        self._decoder = RowDecoder(wide)
        self._device_ring = self._ring_for(self._decoder)
        places = {cell: place for place, cell in enumerate(narrow.cells)}
        self._device_ring.take_over(ring, [*map(places.get, wide.cells)])

    def drop_layout(self) -> None:
        """Have the next trace fix the layout again, because TensorFlow dropped the trace that fixed it."""
        if self._decoder is not None and self._device_ring is not None:
            self._dropped = self._decoder, self._device_ring
        self._decoder = self._device_ring = None

    def sum_microbatch(self, inputs: StepInputs, *, restore_if: Callable[[tf.Tensor], None]) -> tf.Tensor | None:
        """Measure a micro-batch, or the part of one that some variables' gradients make up.

        Args:
            inputs: of the micro-batch.
            restore_if: restores what its forward pass changed if a bool scalar is true.

        Returns:
            Whether it is the first since the last update, a bool scalar; ``None`` if none of its variables is watched.
        """
        columns = {id(variable): column for column, variable in enumerate(self._columns.variables)}
        watched = [(gradient, columns[id(variable)]) for gradient, variable in inputs.pairs if id(variable) in columns]
        if not watched or self._microbatches is None:
            return None
        gradients, places = zip(*watched, strict=True)
        return self._microbatches.add(gradients, places, loss=inputs.loss, restore_if=restore_if)

    def make_microbatches(self) -> DeviceMicrobatches:
        """Return the micro-batches in device memory, with room for every variable; they are made at the first call."""
        with tf.init_scope():
            if self._microbatches is None:
                self._microbatches = DeviceMicrobatches(columns=len(self._columns.variables))
            self._microbatches.widen(len(self._columns.variables))
        return self._microbatches

    def take_tensors(self, graph: Graph | None, *, replica: int = 0) -> dict[str, Watched]:
        """Return the watched tensors of a replica's step, by name, and warn of those that cannot be measured.

        Args:
            graph: that ``apply_gradients`` is called in; ``None`` for an eager step.
            replica: its number in this process.
        """
        found, others = self._tensors[replica].take(graph)
        if replica == 0 and len(others) == 1:
            self.warn_once(
                f"does not watch tensor {others[0]!r}: it is made in another function than apply_gradients is in"
            )
        elif replica == 0 and others:
            # A recurrent layer calls its cell in a loop, once for each trace of it.
            self.warn_once(
                "does not watch tensors that are made in another function than apply_gradients is in, such as a loop's"
            )
        return found

    def observe(
        self,
        inputs: StepInputs,
        tensors: Mapping[str, Watched],
        graph: Graph | None,
        *,
        kept: Sequence[KeptVariable],
        scalars: UpdateScalars,
        measures_weights: bool,
        is_more: bool,
        remedy: str,
    ) -> Observation:
        """Return the observation of a step, on all of its replicas.

        Args:
            inputs: of the step.
            tensors: watched tensors by name; of the first replica, if there are several.
            graph: that the step is traced into; ``None`` for an eager step.
            kept: variables that the forward pass changed, with their values from before.
            scalars: of the update.
            measures_weights: whether to measure the variables, which an earlier optimizer of the step may have done.
            is_more: whether an optimizer comes before this one in the step.
            remedy: what to do about variables that come too late.
        """
        layout, columns, parts = self._layout_now, self._columns, []
        places = [""] if inputs.replicas is None else inputs.replicas.devices
        for replica, (given, device) in enumerate(zip([inputs, *inputs.others], places, strict=True)):
            own = self.take_tensors(graph, replica=replica) if replica else tensors
            with tf.device(device) if device else nullcontext():
                columns.warn_of_late(given, remedy=remedy)
                self._warn_of_late_tensors(given, own, layout)
                written = columns.written_statistics(inputs, graph, layout.variables)[replica]
                # Every replica has the same variables.
                is_measured = measures_weights and replica == 0
                step = tensors_of_step(
                    given,
                    layout,
                    columns.variables,
                    weights=columns.values_at_start(kept) if is_measured else [None] * len(columns.variables),
                    watched=[*map(own.get, layout.tensors)],
                    state=[*map(written.get, layout.state)],
                    microbatches=self._microbatch_cells(layout, is_more=is_more),
                    scalars=scalars,
                    is_more=is_more,
                )
                parts.append(StepObservation(step))
        return parts[0] if inputs.replicas is None else ReplicasObservation(inputs.replicas, parts)

    def _warn_of_late_tensors(self, inputs: StepInputs, tensors: Mapping[str, Watched], layout: Layout) -> None:
        for name in tensors:
            if name not in layout.tensors:
                self.warn_once(f"does not watch tensor {name!r}: it came after the first step")
        if inputs.raw is not None and layout.clip == "none":
            self.warn_once("does not watch clipping that came after the first step: clip from there on, and give raw=")

    @property
    def _layout_now(self) -> Layout:
        if self._decoder is None:
            raise RuntimeError("begin_step must be called before observe")
        return self._decoder.layout

    def _complete(
        self, inputs: StepInputs, tensors: Mapping[str, Watched], graph: Graph | None
    ) -> tuple[Decoder, DeviceRing]:
        described = self._columns.complete(inputs, graph)
        clip: ClipKind = clip_kind(inputs.raw, inputs.gradients)
        layout = Layout(
            described,
            tuple(tensors),
            inputs.loss is not None,
            "other" if clip == "none" and self._clips else clip,
            tuple(self._columns.written_statistics(inputs, graph, described)[0]),
            scale=inputs.scale is not None or self._scales,
            skips=self._policy == "skip",
            accumulates=self._microbatches is not None,
            scalars=True,
        )
        decoder: Decoder = RowDecoder(layout) if inputs.replicas is None else inputs.replicas.decoder(layout)
        if self._dropped is not None and self._dropped[0] == decoder:
            # If TensorFlow needs the dropped trace to create the step's variables, that trace runs first.
            return self._dropped
        with tf.init_scope():
            return decoder, self._ring_for(decoder)

    def _ring_for(self, decoder: Decoder) -> DeviceRing:
        cells = decoder.cells
        return DeviceRing(window=self._window, cells=len(cells), added=places_of(cells, "loss"))

    def _microbatch_cells(self, layout: Layout, *, is_more: bool) -> tf.Tensor | None:
        if not layout.accumulates or self._microbatches is None:
            return None
        columns = len(self._columns.variables)
        return tf.fill([columns + 3], ABSENT) if is_more else self._microbatches.cells(columns)
