"""The driver of TensorFlow 2: steps that run as a ``tf.function``, eagerly, or in another loop such as ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar, cast

import tensorflow as tf

from tb_nanwatch.schema.records import Replay, Verdict
from tb_nanwatch.watch.drivers.investigation import evidence_of
from tb_nanwatch.watch.drivers.loop import Loop
from tb_nanwatch.watch.drivers.microbatch_calls import MicrobatchCalls
from tb_nanwatch.watch.drivers.optimizer import UpdateMethod, build, known_rate, loss_scale_of
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.drivers.strategy import (
    calls_of,
    can_meet,
    is_last_here,
    own_inputs,
    replica_context,
    replica_here,
    together,
)
from tb_nanwatch.watch.guard.guard import MESSAGE
from tb_nanwatch.watch.guard.updates import GuardedUpdates
from tb_nanwatch.watch.record.batch import Call, StepCall
from tb_nanwatch.watch.record.draws import Draws
from tb_nanwatch.watch.record.incident import verdict_by_hand
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.replay import Evidence, ReplayLimits, current_trial
from tb_nanwatch.watch.replay.function_trace import replay_function
from tb_nanwatch.watch.replay.replica_trace import replay_replica
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import SampledTensor
from tb_nanwatch.watch.row.microbatches import NONE_BAD, MicrobatchStore
from tb_nanwatch.watch.row.replicas import ReplicaDecoder
from tb_nanwatch.watch.tf_internals import converted_method

_T = TypeVar("_T")
_Update = Callable[[Sequence[tuple[Any, Any]]], Any]
_running: ContextVar[Steps | None] = ContextVar("nanwatch_running", default=None)


def _no_call() -> Call | None:
    return None


class Steps:
    """The steps of one watch; a :class:`~tb_nanwatch.watch.drivers.driver.Driver`.

    Attributes:
        loop: the host's part.
    """

    def __init__(self, options: LoopOptions, plan: Plan) -> None:
        """Begin before the first step.

        Args:
            options: the user's.
            plan: what is measured.
        """
        self._plan, self._updates = plan, GuardedUpdates(plan, policy=options.policy)
        self.loop = Loop(self, options, plan)
        self._is_step_inside = False
        self._bad_replica: int | None = None
        self._draws: Draws | None = None
        self._batches: Any = None
        self._depth = 0
        self._runs = 0
        self._followers: list[Steps] = []
        self._is_passed_over = False
        self._last_call: Call | None = None
        self._find_call: Callable[[], Call | None] = _no_call
        self._microbatches, self._has_microbatches = MicrobatchCalls(), False

    @property
    def withholds(self) -> bool:
        """Whether the policy withholds the update of a bad step."""
        return self.loop.options.withholds

    def run(self, step: Callable[[], _T], call: Call | None, find_call: Callable[[], Call | None] = _no_call) -> _T:
        """Run a step, and raise if it was bad and the policy says so; the step's own errors pass.

        Args:
            step: one step, or several.
            call: its arguments; ``None`` if they are unknown.
            find_call: returns them after a bad step, if ``call`` is ``None``.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        self._last_call, self._find_call = call, find_call
        self._depth += 1
        self._runs += 1
        self._microbatches.begin(call)
        outer = _running.set(self)
        try:
            result = step()
        except tf.errors.OpError as error:
            if MESSAGE in str(error):
                self.loop.step_stopped(call)
            else:
                self.loop.step_failed(error, lambda: call or find_call())
            raise
        finally:
            _running.reset(outer)
            self._depth -= 1
        self.loop.after_step(call)
        for follower in self._followers:
            follower.loop.after_step(call)
        if self._has_microbatches:
            self._end_microbatches(call)
        return result

    def begin_trace(self, graph: Any) -> None:
        """Take note that a whole step is about to be traced into ``graph``; the trace may raise ``BeginAgain``."""
        self._microbatches.begin_trace()
        self._updates.traces.begin(graph, can_begin_again=True)

    def finish_trace(self, graph: Any) -> None:
        """Take note that a whole step was traced into ``graph``."""
        self._updates.finish_trace(graph)

    def expect_update(self, function: str) -> None:
        """Warn at the end of the watch if no step has called ``apply_gradients`` by then.

        Args:
            function: name of the step that was traced.
        """
        if not self._is_passed_over:
            self.loop.expect_row(function)

    @contextmanager
    def tracing(self, batch: Any) -> Iterator[None]:
        """Trace a step of another loop, such as ``model.fit``, from its beginning to its end.

        Args:
            batch: a structure of the tensors that the step is given.
        """
        if current_trial() is not None:
            yield
            return
        graph = tf.compat.v1.get_default_graph()
        self._is_step_inside = replica_context() is not None
        self._updates.stash.offer(graph, batch, replica=replica_here())
        self._updates.traces.allow_repeated_updates(graph)
        self.begin_trace(graph)
        yield
        if is_last_here():
            self.finish_trace(graph)

    def keep_batch_after(self, batch: Any) -> None:
        """Keep the batch of a step that XLA compiled, in the graph that calls the step, if the step was bad."""
        if current_trial() is None:
            self._updates.keep_batch_after(batch)

    def take_batch(self) -> Any:
        """Return the last bad step's batch, as it was given to :meth:`tracing`."""
        batches, self._batches = self._batches, None
        replica = self._find_bad_replica()
        return None if batches is None or replica is None or replica >= len(batches) else batches[replica]

    def begin_eager(self) -> None:
        """Mark the start of an eager step of another loop: all updates from here on belong to it."""
        self._updates.traces.begin_eager()

    def is_eager_step_bad(self) -> bool:
        """Return whether the last eager step was found bad."""
        return self._updates.is_eager_step_bad()

    def expect_model(self, model: Any, *, microbatches: int) -> None:
        """Watch a model's variables, in its order, before any others that the first update brings.

        Args:
            model: of Keras. Layers and variables are named by their place in it.
            microbatches: how many steps in a row add up to one update, where the optimizer adds them up.
        """
        self._plan.expect_model(model, microbatches=microbatches)

    def prepare(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Build an optimizer for the variables that it updates, if it is not built."""
        graph = tf.compat.v1.get_default_graph()
        build(optimizer, variables, can_begin_again=lambda: self._updates.traces.can_begin_again(graph))

    def apply_gradients(
        self,
        optimizer: Any,
        pairs: Sequence[tuple[Any, Any]],
        *,
        raw: Sequence[Any] | None,
        loss: Any,
        step: Any,
        extra: Mapping[str, Any],
        caller: Any,
    ) -> Any:
        """Measure gradients, then let the optimizer apply them if the guard does.

        Args:
            optimizer: the user's.
            pairs: gradient and variable.
            raw: see :meth:`tb_nanwatch.Watch.apply_gradients`.
            loss: likewise.
            step: the variable that counts steps; ``None`` to count them here.
            extra: passed on to the optimizer.
            caller: AutoGraph's status in the caller; ``None`` in an eager step.

        Raises:
            SetupError: if these cannot be a step's.
        """
        method = UpdateMethod.of(optimizer)
        inputs = StepInputs.checked(pairs, raw=raw, loss=loss, step=step)
        self.prepare(optimizer, inputs.variables)
        inputs = inputs._replace(scale=loss_scale_of(optimizer))
        if caller is not None:
            method = method._replace(call=converted_method(method.call, caller))
        with known_rate(optimizer) as scalars:
            return self.apply(inputs._replace(scalars=scalars), lambda pairs: method(pairs, **extra))

    def apply(self, inputs: StepInputs, update: _Update) -> Any:
        """Measure a step, and run its update if the guard lets it.

        Args:
            inputs: of the step, checked; the optimizer is built.
            update: applies pairs of gradient and variable.
        """
        trial = current_trial()
        if trial is not None:
            return trial.apply(own_inputs(inputs), update) if trial.watch is self else update(inputs.pairs)
        if self._depth:
            self._microbatches.note_update()
        context = replica_context()
        if context is None:
            return self._guarded(inputs, update)
        if not can_meet(context.strategy):
            self._plan.warn_once(
                f"does not watch a step that {type(context.strategy).__name__} runs, and it trains unwatched: it"
                " watches those of MirroredStrategy, MultiWorkerMirroredStrategy and OneDeviceStrategy, outside of XLA"
            )
            self._is_passed_over = True
            return update(inputs.pairs)
        return together(context, inputs, update, guarded=self._guarded)

    def accumulate(self, pairs: Sequence[tuple[Any, Any]], *, loss: Any) -> None:
        """Measure one micro-batch; see :meth:`tb_nanwatch.Watch.accumulate`.

        Raises:
            SetupError: if there is no gradient at all.
        """
        inputs = StepInputs.checked(pairs, raw=None, loss=loss, step=None, caller="accumulate")
        trial = current_trial()
        if replica_context() is not None:
            self._plan.warn_once("does not watch the micro-batches of a step on many devices; it watches their total")
        elif trial is not None:
            if trial.watch is self:
                trial.accumulate(inputs)
        else:
            if self._depth:
                self._has_microbatches = True
                self._microbatches.note_measure()
            self._updates.accumulate(inputs)

    def watch_tensor(self, name: str, value: tf.Tensor) -> None:
        """Watch one more tensor of the step; see :meth:`tb_nanwatch.Watch.tensor`."""
        trial = current_trial()
        if trial is None:
            self._plan.tensors_of(replica_here()).add(name, value)
        elif trial.watch is self:
            trial.note_tensor(name, value)

    def watch_output(self, layer: Any, value: tf.Tensor, *, place: int, is_due: tf.Tensor) -> None:
        """Watch an output of a Keras layer in the steps where ``is_due`` is true; in the others it costs nothing.

        Args:
            layer: whose path becomes the name of the watched tensor.
            value: floating, any shape.
            place: of the output among those of the layer.
            is_due: bool scalar.
        """
        if current_trial() is None:
            path = self._plan.columns.name_of_layer(layer)
            name = f"{path}[{place}]" if place else path
            self._plan.tensors_of(replica_here()).add(name, SampledTensor(value, is_due))

    def replay_step(self, call: Call) -> Verdict:
        """Replay a step because the user asked for it; see :meth:`tb_nanwatch.Watch.replay_step`."""
        step = self.loop.next_step()
        found = replay_function(call, evidence_of(self._plan), watch=self, limits=ReplayLimits())
        return verdict_by_hand(found, self._plan.described, step=step, run=self.loop.options.run)

    @property
    def accumulation(self) -> MicrobatchStore | None:
        """The micro-batches of a step; ``None`` if it has none."""
        return self._plan.microbatches

    @property
    def last_call(self) -> Call | None:
        """The call of the step that ran last; ``None`` if its arguments are unknown."""
        return self._last_call

    def calls_of(self, call: StepCall) -> Sequence[Call]:
        """Return a call as each replica of this process made it."""
        return [_own(call)] if self._plan.replicas is None else calls_of(_own(call), self._plan.replicas)

    def call_of_bad_step(self, call: StepCall | None) -> Call | None:
        """Return the call of the bad step, with the batch and the random numbers that its guard kept."""
        self._batches, self._draws = self._updates.stash.take()
        own = self._find_call() if call is None else _own(call)
        replica = None if own is None else self._find_bad_replica()
        return None if own is None or replica is None else self.calls_of(own)[replica]

    def call_of_bad_microbatch(self, call: StepCall) -> Call | None:
        """Return the call that measured the first bad micro-batch of a step; ``None`` if it is unknown."""
        which = NONE_BAD if self._plan.microbatches is None else self._plan.microbatches.bad_call()
        return _own(call) if which == NONE_BAD else self._microbatches.bad(which, _own(call))

    def last_values(self) -> Sequence[Any]:
        """Return what gives each variable's value, without the infinities that are meant."""
        return self._plan.columns.last_values

    def replay(
        self, call: StepCall, evidence: Evidence, *, limits: ReplayLimits, logdir: str = "", dump: str | None = None
    ) -> Replay:
        """Replay a step, or on many devices the part of the replica that was bad first."""
        replicas, bad = self._plan.replicas, self._bad_replica
        if evidence.error is None and not evidence.is_microbatch:
            # Micro-batches may be calls of their own, which drew other random numbers.
            evidence = replace(evidence, draws=self._draws)
        if replicas is None or bad is None:
            return replay_function(_own(call), evidence, watch=self, limits=limits, logdir=logdir, dump=dump)
        return replay_replica(
            _own(call),
            evidence,
            replicas=replicas,
            place=bad,
            is_inside=self._is_step_inside,
            watch=self,
            limits=limits,
            logdir=logdir,
            dump=dump,
        )

    def _guarded(self, inputs: StepInputs, update: _Update) -> Any:
        def guarded() -> Any:
            return self._updates.apply(inputs, lambda: update(inputs.pairs), run=self._runs if self._depth else 0)

        if self._depth:
            return guarded()
        if tf.executing_eagerly():
            return self.run(guarded, None)
        self._follow_outer()
        return guarded()

    def _find_bad_replica(self) -> int | None:
        """Return the number in this process of the bad step's first bad replica; ``None`` if another process has it."""
        decoder, ring = self._plan.decoder, self._plan.ring
        if not isinstance(decoder, ReplicaDecoder) or ring is None:
            return 0
        self._bad_replica = decoder.first_bad_here(ring.incident_counts())
        return self._bad_replica

    def _follow_outer(self) -> None:
        """If a step of another watch is being traced, have that watch check for this one's bad steps after each."""
        outer = _running.get()
        if outer is not None and outer is not self and self not in outer._followers:
            outer._followers.append(self)

    def _end_microbatches(self, call: Call | None) -> None:
        part = "keep the calls of micro-batches"
        self.loop.boundary.attempt(part, lambda: self._microbatches.end(call, self._rows_written), otherwise=None)

    def _rows_written(self) -> int:
        return 0 if self._plan.ring is None else self._plan.ring.rows_written()


def _own(call: StepCall) -> Call:
    """Return a call that the loop hands back; it is always one that this driver gave the loop."""
    return cast("Call", call)
