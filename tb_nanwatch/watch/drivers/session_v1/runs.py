"""The runs of a session: what is fetched beside what the user asks for, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.drivers.loop import Loop
from tb_nanwatch.watch.drivers.session_v1.feeds import FedCall, fed_gradients
from tb_nanwatch.watch.drivers.session_v1.others import Write, Writes, note_on_kept, other_writes
from tb_nanwatch.watch.drivers.session_v1.plan import Built, build
from tb_nanwatch.watch.graphs import ancestors
from tb_nanwatch.watch.guard.pivot import FetchedStep
from tb_nanwatch.watch.replay import Evidence, ReplayLimits
from tb_nanwatch.watch.replay.session_trace import Again
from tb_nanwatch.watch.row.infinities import SessionInfinities, cleared
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.plan import Plan
from tb_nanwatch.watch.variables import handle_of

_MOST_KNOWN: Final = 256
Kind = Literal["update", "microbatch", "other"]
_NOT_BUILT: Final = "watch.apply_gradients must be called, in the graph of the session, before the first run of it"


class Besides(NamedTuple):
    """What a run is asked for beside what the user wants of it.

    Attributes:
        fetches: one tensor, by the kind of the run.
        feed: by placeholder.
    """

    fetches: Mapping[Kind, tf.Tensor]
    feed: Mapping[Any, Any] | None


class SessionRuns:
    """Watches the runs of one step of a graph of TensorFlow 1."""

    def __init__(self, loop: Loop, plan: Plan) -> None:
        """Prepare; :meth:`apply_gradients` builds the step.

        Args:
            loop: of the watch.
            plan: of the watch.
        """
        self._loop, self._plan = loop, plan
        self._built: Built | None = None
        self._fetched: dict[tuple[int, ...], tuple[Kind, Sequence[Write], Any]] = {}
        self._microbatch: StepInputs | None = None
        self._brought: Mapping[str, int] = {}
        self._session: Any = None
        self._writes = Writes()

    @property
    def built(self) -> Built:
        """The step.

        Raises:
            SetupError: if it is not built yet.
        """
        if self._built is None:
            raise SetupError(_NOT_BUILT)
        return self._built

    def accumulate(self, inputs: StepInputs) -> None:
        """Know what a micro-batch's gradients are; see :meth:`tb_nanwatch.watch.api.Watch.accumulate`.

        Args:
            inputs: checked.

        Raises:
            SetupError: if there is a micro-batch already, or the step is built.
        """
        if self._microbatch is not None or self._built is not None:
            raise SetupError(
                "a watch must be given one accumulate in a graph of TensorFlow 1, before apply_gradients: each run that"
                " fetches its gradients is a micro-batch"
            )
        self._microbatch = inputs
        self._plan.expect(inputs.variables)

    def apply_gradients(
        self, optimizer: Any, inputs: StepInputs, *, step: Any, extra: Mapping[str, Any]
    ) -> tf.Operation:
        """Build the step; see :meth:`tb_nanwatch.watch.api.Watch.apply_gradients`.

        Args:
            optimizer: the user's.
            inputs: checked.
            step: the variable that counts steps; ``None`` if they are counted.
            extra: passed on to the optimizer.

        Returns:
            The operation that trains.

        Raises:
            SetupError: if the watch has a step already.
        """
        if self._built is not None:
            raise SetupError(
                "a watch must be given one apply_gradients in a graph of TensorFlow 1; make one Watch for each, with a"
                " run_name of its own"
            )
        options = self._loop.options

        def update() -> Any:
            return optimizer.apply_gradients(inputs.pairs, **extra)

        self._built = build(self._plan, inputs, update, options=options, step=step, microbatch=self._microbatch)
        raw = [gradient for gradient in inputs.raw or [pair[0] for pair in inputs.pairs] if gradient is not None]
        self._brought = fed_gradients(raw, inputs.loss, inputs.variables)
        self._loop.tolerate(self._brought)
        self._loop.last_values, self._loop.run_again = self._last_values, self._run_again
        if self._built.microbatches is not None:
            self._loop.accumulation = self._built.microbatches.accumulation
        _list_as_train_op(self._built)
        return self._built.train_op

    def before_run(self, session: Any, fetches: Any) -> Besides | None:
        """Return what has to be fetched and fed besides; ``None`` for a run that neither trains nor is a micro-batch.

        Args:
            session: that is to run.
            fetches: as the user gave them.
        """
        if self._built is None:
            raise SetupError(_NOT_BUILT)
        part = "see what a run fetches, and watches no more than that it trains"
        besides = self._loop.boundary.attempt(part, lambda: self._besides(session, fetches), otherwise=None)
        if besides is None and any(fetch is self._built.train_op for fetch in tf.nest.flatten(fetches)):
            return Besides({"update": self._built.guard.fetched}, None)
        return besides

    def _besides(self, session: Any, fetches: Any) -> Besides | None:
        (kind, others, _), microbatches = self._known(fetches), self.built.microbatches
        self._writes.begin(others)
        if kind == "update":
            self._read_infinities(session)
            return Besides({kind: self.built.guard.fetched}, self.built.feed)
        if kind == "microbatch" and microbatches is not None:
            return Besides({kind: microbatches.guard.fetched}, None)
        self._writes.end(self._writes.next_step)
        return None

    def _read_infinities(self, session: Any) -> None:
        infinities = self.built.infinities
        if infinities.read(session):
            masks = [infinities.mask_of(handle_of(variable)) for variable in self._plan.variables]
            self._plan.note_infinities(self.built.layout.variables, masks)

    def after_run(self, session: Any, told: Mapping[Kind, Any], feed_dict: Mapping[Any, Any] | None) -> None:
        """Take what a run of the step, or of a micro-batch, brought.

        Args:
            session: that ran it.
            told: the values of what :meth:`before_run` gave.
            feed_dict: as the user gave it.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        self._session = session
        boundary = self._loop.boundary
        if "update" not in told:
            boundary.attempt(
                "take a micro-batch", lambda: self._take_microbatch(told["microbatch"], feed_dict), otherwise=None
            )
            return
        row = told["update"]
        taken = boundary.attempt("take the row of a step", lambda: self._take_update(row, feed_dict), otherwise=None)
        if taken is None:
            self._loop.lose_step(is_bad=lambda: self._is_bad(row))
            return
        call, step = taken
        try:
            self._loop.after_step(call)
        finally:
            boundary.attempt("keep what other runs write", lambda: self._end_writes(step), otherwise=None)

    def _is_bad(self, row: Any) -> bool:
        """Return whether a row as it was fetched, the step's number first, is of a bad step."""
        return not np.isfinite(row[1 : 1 + self.built.recorder.cells].astype(np.float32)).all()

    @property
    def _puts_back(self) -> bool:
        return self._loop.options.policy != "record"

    def _take_microbatch(self, told: Any, feed_dict: Mapping[Any, Any] | None) -> None:
        microbatches = self.built.microbatches
        if microbatches is not None:
            call = FedCall.of(self.built.graph, feed_dict)
            microbatches.take(self._session, told, call, puts_back=self._puts_back)
            self._loop.bad_microbatch = microbatches.accumulation.bad_call

    def _take_update(self, told: Any, feed_dict: Mapping[Any, Any] | None) -> tuple[FedCall, int]:
        """Record the row of a step, and return what it was fed and its number."""
        built, microbatches, attempt = self.built, self.built.microbatches, self._loop.boundary.attempt
        call = FedCall.of(built.graph, feed_dict)
        seen = built.guard.unpack(told, cells=built.recorder.cells)
        is_finite = built.recorder.add(seen.row, seen.counts, step=seen.step)
        call = attempt("keep what entered a run", lambda: self._entered(call, seen), otherwise=call)
        if not is_finite and self._puts_back:
            call = attempt(
                "say what other runs wrote", lambda: call.noting(tuple(note_on_kept(self._writes.now))), otherwise=call
            )
            put_back = partial(built.guard.state.restore_unordered, self._session, seen.state)
            attempt("put back what the forward pass of the bad step changed", put_back, otherwise=None)
        if microbatches is not None:
            self._loop.bad_microbatch = microbatches.accumulation.bad_call
            microbatches.accumulation.end()
        return call, built.recorder.rows_written() - 1 if self._plan.counted else seen.step

    def _entered(self, call: FedCall, seen: FetchedStep) -> FedCall:
        intake = self.built.intake
        return call.entered(intake.unpacked(seen.extra), intake) if len(seen.extra) else call

    def _end_writes(self, step: int) -> None:
        self._writes.end(step)
        self._writes.next_step = step + 1

    def run(self, session: Any, fetches: Any, **arguments: Any) -> Any:
        """Run a session once, watched; see :meth:`tb_nanwatch.watch.api.Watch.session_run`.

        Args:
            session: to run.
            fetches: the user's.
            **arguments: of ``session.run``.
        """
        besides = self.before_run(session, fetches)
        if besides is None:
            return session.run(fetches, **arguments)
        feed_dict = arguments.pop("feed_dict", None)
        whole = feed_dict if besides.feed is None else {**(feed_dict or {}), **besides.feed}
        try:
            result, told = session.run([fetches, besides.fetches], feed_dict=whole, **arguments)
        except tf.errors.OpError as error:
            self.failed(session, error, feed_dict)
            raise
        self.after_run(session, told, feed_dict)
        return result

    def failed(self, session: Any, error: tf.errors.OpError, feed_dict: Mapping[Any, Any] | None) -> None:
        """Know that an error ended a run that :meth:`before_run` had something fetched with.

        Args:
            session: that ran it.
            error: of an operation.
            feed_dict: as the user gave it.
        """
        self._session = session
        self._loop.step_failed(error, FedCall.of(self.built.graph, feed_dict))

    def end(self, session: Any) -> None:
        """Write what is left, and look at the variables once more while there is a session to read them by.

        Raises:
            NonFiniteError: by policy ``"raise"``, if the last update left a variable non-finite.
        """
        self._session = session
        self._loop.close()

    def _known(self, fetches: Any) -> tuple[Kind, Sequence[Write], Any]:
        flat = tf.nest.flatten(fetches, expand_composites=True)
        key = tuple(map(id, flat))
        if key not in self._fetched:
            if len(self._fetched) >= _MOST_KNOWN:
                self._fetched.clear()
            # With the fetches themselves, so that no other object takes the place of one.
            self._fetched[key] = *self._made_of(flat), flat
        return self._fetched[key]

    def _made_of(self, fetches: Sequence[Any]) -> tuple[Kind, Sequence[Write]]:
        graph, microbatches = self.built.graph, self.built.microbatches
        run = ancestors(graph.as_graph_element(fetch) for fetch in fetches if fetch is not None)
        others = other_writes(run, self.built)
        if self.built.guard.passed.op in run:
            return "update", others
        return ("microbatch" if microbatches is not None and microbatches.is_run_by(run) else "other"), others

    def _run_again(self, call: FedCall, evidence: Evidence, *, limits: ReplayLimits, **_: Any) -> Replay:
        built, brought, microbatches = self.built, self._brought, self.built.microbatches
        if microbatches is not None and call is microbatches.accumulation.bad_call:
            built, brought = replace(built, inputs=microbatches.inputs, tensors={}, statistics={}), {}
        return Again(built, self._session, call, brought, self._writes).replay(evidence, limits=limits)

    def _last_values(self) -> Sequence[Any]:
        return [_Value(variable, self._session, self.built.infinities) for variable in self._plan.variables]


class _Value:
    """A variable as a session has it, without the infinities that are meant."""

    def __init__(self, variable: Any, session: Any, infinities: SessionInfinities) -> None:
        self._variable, self._session, self._infinities = variable, session, infinities

    def numpy(self) -> Any:
        """Return the value; nothing where the session is over."""
        try:
            value = self._session.run(self._variable)
        except (RuntimeError, AttributeError, tf.errors.OpError):
            return np.zeros(0)
        return cleared(value, self._infinities.mask_of(handle_of(self._variable)))


def _list_as_train_op(built: Built) -> None:
    listed = built.graph.get_collection_ref(tf.compat.v1.GraphKeys.TRAIN_OP)
    own = set(built.update_ops)
    listed[:] = [one for one in listed if one not in own] + [built.train_op]
