"""The driver of TensorFlow 1: what the runs of a session fetch beside the user's fetches, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.drivers.loop import Loop
from tb_nanwatch.watch.drivers.optimizer import session_loss_scale_of
from tb_nanwatch.watch.drivers.session_v1.plan import Built, build
from tb_nanwatch.watch.graphs import ancestors
from tb_nanwatch.watch.guard.pivot import FetchedStep
from tb_nanwatch.watch.record.batch import StepCall
from tb_nanwatch.watch.record.intake import FedCall, fed_gradients
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.replay import Evidence, ReplayLimits
from tb_nanwatch.watch.replay.engine import replay
from tb_nanwatch.watch.replay.session_trace import SessionTracer
from tb_nanwatch.watch.replay.side_writes import Write, Writes, note_on_kept, other_writes
from tb_nanwatch.watch.row.infinities import SessionInfinities, cleared
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.microbatches import MicrobatchStore
from tb_nanwatch.watch.variables import handle_of

_MOST_KNOWN: Final = 256
Kind = Literal["update", "microbatch", "other"]
_NOT_BUILT: Final = "watch.apply_gradients must be called, in the graph of the session, before the first run of it"


class Extra(NamedTuple):
    """What a run fetches and is fed beside what the user asks for.

    Attributes:
        fetches: one tensor, by the kind of the run.
        feed: by placeholder; ``None`` for nothing.
    """

    fetches: Mapping[Kind, tf.Tensor]
    feed: Mapping[Any, Any] | None


class SessionRuns:
    """The runs of one step in a graph of TensorFlow 1; a :class:`~tb_nanwatch.watch.drivers.driver.Driver`."""

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
        self._fed_gradients: Mapping[str, int] = {}
        self._session: Any = None
        self._writes = Writes()

    @property
    def built(self) -> Built:
        """The step as it stands in its graph.

        Raises:
            SetupError: if it is not built yet.
        """
        if self._built is None:
            raise SetupError(_NOT_BUILT)
        return self._built

    def accumulate(self, pairs: Sequence[tuple[Any, Any]], *, loss: Any) -> None:
        """Define a micro-batch; see :meth:`tb_nanwatch.Watch.accumulate`.

        Raises:
            SetupError: if there is no gradient at all, there is a micro-batch already, or the step is built.
        """
        inputs = StepInputs.checked(pairs, raw=None, loss=loss, step=None, caller="accumulate")
        if self._microbatch is not None or self._built is not None:
            raise SetupError(
                "a watch must be given one accumulate in a graph of TensorFlow 1, before apply_gradients: each run that"
                " fetches its gradients is a micro-batch"
            )
        self._microbatch = inputs
        self._plan.expect(inputs.variables)

    def apply_gradients(
        self,
        optimizer: Any,
        pairs: Sequence[tuple[Any, Any]],
        *,
        raw: Sequence[Any] | None,
        loss: Any,
        step: Any,
        extra: Mapping[str, Any],
    ) -> tf.Operation:
        """Build the step; see :meth:`tb_nanwatch.Watch.apply_gradients`.

        Args:
            optimizer: the user's.
            pairs: gradient and variable.
            raw: see :meth:`tb_nanwatch.Watch.apply_gradients`.
            loss: likewise.
            step: the variable that counts steps; ``None`` to count them here.
            extra: passed on to the optimizer.

        Returns:
            The operation that trains.

        Raises:
            SetupError: if these cannot be a step's, or the watch has a step already.
        """
        inputs = StepInputs.checked(pairs, raw=raw, loss=loss, step=None)
        scale = session_loss_scale_of(optimizer)
        inputs = inputs._replace(scale=scale, is_unscaled=scale is not None)
        if self._built is not None:
            raise SetupError(
                "a watch must be given one apply_gradients in a graph of TensorFlow 1; make one Watch for each, with a"
                " run_name of its own"
            )
        options = self._loop.options

        def update() -> Any:
            return optimizer.apply_gradients(inputs.pairs, **extra)

        self._built = build(self._plan, inputs, update, options=options, step=step, microbatch=self._microbatch)
        gradients = [gradient for gradient in inputs.raw or [pair[0] for pair in inputs.pairs] if gradient is not None]
        self._fed_gradients = fed_gradients(gradients, inputs.loss, inputs.variables)
        self._loop.tolerate(self._fed_gradients)
        self._loop.use(self)
        _list_as_train_op(self._built)
        return self._built.train_op

    def before_run(self, session: Any, fetches: Any) -> Extra | None:
        """Return what a run must also fetch and be fed; ``None`` if it neither trains nor is a micro-batch.

        Args:
            session: that is to run.
            fetches: as the user gave them.
        """
        if self._built is None:
            raise SetupError(_NOT_BUILT)
        part = "see what a run fetches, and watches no more than that it trains"
        extra = self._loop.boundary.attempt(part, lambda: self._extra(session, fetches), otherwise=None)
        if extra is None and any(fetch is self._built.train_op for fetch in tf.nest.flatten(fetches)):
            return Extra({"update": self._built.guard.fetched}, None)
        return extra

    def _extra(self, session: Any, fetches: Any) -> Extra | None:
        (kind, others, _), microbatches = self._known(fetches), self.built.microbatches
        self._writes.begin(others)
        if kind == "update":
            self._read_infinities(session)
            return Extra({kind: self.built.guard.fetched}, self.built.feed)
        if kind == "microbatch" and microbatches is not None:
            return Extra({kind: microbatches.guard.fetched}, None)
        self._writes.end(self._writes.next_step)
        return None

    def _read_infinities(self, session: Any) -> None:
        infinities = self.built.infinities
        if infinities.read(session):
            masks = [infinities.mask_of(handle_of(variable)) for variable in self._plan.columns.variables]
            self._plan.columns.note_infinities(self.built.layout.variables, masks)

    def after_run(self, session: Any, fetched: Mapping[Kind, Any], feed_dict: Mapping[Any, Any] | None) -> None:
        """Record what a run of the step, or of a micro-batch, fetched.

        Args:
            session: that ran it.
            fetched: the values of what :meth:`before_run` returned.
            feed_dict: as the user gave it.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        self._session = session
        boundary = self._loop.boundary
        if "update" not in fetched:
            boundary.attempt(
                "take a micro-batch", lambda: self._take_microbatch(fetched["microbatch"], feed_dict), otherwise=None
            )
            return
        row = fetched["update"]
        recorded = boundary.attempt("take the row of a step", lambda: self._take_update(row, feed_dict), otherwise=None)
        if recorded is None:
            self._loop.lose_step(is_bad=lambda: self._is_bad(row))
            return
        call, step = recorded
        try:
            self._loop.after_step(call)
        finally:
            boundary.attempt("keep what other runs write", lambda: self._end_writes(step), otherwise=None)

    def _is_bad(self, row: Any) -> bool:
        """Return whether a fetched row, which begins with the step's number, is a bad step's."""
        return not np.isfinite(row[1 : 1 + self.built.ring.cells].astype(np.float32)).all()

    def _take_microbatch(self, fetched: Any, feed_dict: Mapping[Any, Any] | None) -> None:
        microbatches = self.built.microbatches
        if microbatches is not None:
            call = FedCall.of(self.built.graph, feed_dict)
            microbatches.take(self._session, fetched, call, puts_back=self._loop.options.withholds)

    def _take_update(self, fetched: Any, feed_dict: Mapping[Any, Any] | None) -> tuple[FedCall, int]:
        """Record the row of a step, and return its call and its number."""
        built, microbatches, attempt = self.built, self.built.microbatches, self._loop.boundary.attempt
        call = FedCall.of(built.graph, feed_dict)
        seen = built.guard.unpack(fetched, cells=built.ring.cells)
        is_finite = built.ring.add(seen.row, seen.counts, step=seen.step)
        call = attempt("keep what entered a run", lambda: self._entered(call, seen), otherwise=call)
        if not is_finite and self._loop.options.withholds:
            call = attempt(
                "say what other runs wrote",
                lambda: replace(call, notes=tuple(note_on_kept(self._writes.now))),
                otherwise=call,
            )
            put_back = partial(built.guard.state.restore_unordered, self._session, seen.state)
            attempt("put back what the forward pass of the bad step changed", put_back, otherwise=None)
        if microbatches is not None:
            microbatches.accumulation.end()
        return call, built.ring.rows_written() - 1 if self._plan.counted else seen.step

    def _entered(self, call: FedCall, seen: FetchedStep) -> FedCall:
        intake = self.built.intake
        return call.with_entered(intake.unpacked(seen.extra), intake) if len(seen.extra) else call

    def _end_writes(self, step: int) -> None:
        self._writes.end(step)
        self._writes.next_step = step + 1

    def run(self, session: Any, fetches: Any, **arguments: Any) -> Any:
        """Run a session once, watched; see :meth:`tb_nanwatch.Watch.session_run`.

        Args:
            session: to run.
            fetches: the user's.
            **arguments: of ``session.run``.
        """
        extra = self.before_run(session, fetches)
        if extra is None:
            return session.run(fetches, **arguments)
        feed_dict = arguments.pop("feed_dict", None)
        whole = feed_dict if extra.feed is None else {**(feed_dict or {}), **extra.feed}
        try:
            result, fetched = session.run([fetches, extra.fetches], feed_dict=whole, **arguments)
        except tf.errors.OpError as error:
            self.failed(session, error, feed_dict)
            raise
        self.after_run(session, fetched, feed_dict)
        return result

    def failed(self, session: Any, error: tf.errors.OpError, feed_dict: Mapping[Any, Any] | None) -> None:
        """Record that an error ended a run for which :meth:`before_run` returned something.

        Args:
            session: that ran it.
            error: of an operation.
            feed_dict: as the user gave it.
        """
        self._session = session
        self._loop.step_failed(error, lambda: FedCall.of(self.built.graph, feed_dict))

    def end(self, session: Any) -> None:
        """Write what is left, and check the variables while there is a session to read them by.

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
            # The entry holds the fetches, so that no other object gets the id of one.
            self._fetched[key] = *self._classified(flat), flat
        return self._fetched[key]

    def _classified(self, fetches: Sequence[Any]) -> tuple[Kind, Sequence[Write]]:
        graph, microbatches = self.built.graph, self.built.microbatches
        run = ancestors(graph.as_graph_element(fetch) for fetch in fetches if fetch is not None)
        others = other_writes(run, self.built)
        if self.built.guard.passed.op in run:
            return "update", others
        return ("microbatch" if microbatches is not None and microbatches.is_run_by(run) else "other"), others

    @property
    def accumulation(self) -> MicrobatchStore | None:
        """The micro-batches of a step; ``None`` if it has none."""
        return None if self.built.microbatches is None else self.built.microbatches.accumulation

    @property
    def last_call(self) -> StepCall | None:
        """``None``: the check after the last update replays no run of a session."""
        return None

    def calls_of(self, call: StepCall) -> Sequence[StepCall]:
        """Return the call alone: a session has no replicas."""
        return [call]

    def call_of_bad_step(self, call: StepCall | None) -> StepCall | None:
        """Return the call: a bad step is known before the next one runs."""
        return call

    def call_of_bad_microbatch(self, call: StepCall) -> StepCall | None:
        """Return the run of a step's first bad micro-batch, or the step's where there is none."""
        microbatches = self.built.microbatches
        return (None if microbatches is None else microbatches.accumulation.bad_call) or call

    def last_values(self) -> Sequence[Any]:
        """Return what reads each variable by the last session, without the infinities that are meant."""
        return [_Value(variable, self._session, self.built.infinities) for variable in self._plan.columns.variables]

    def replay(
        self, call: StepCall, evidence: Evidence, *, limits: ReplayLimits, logdir: str = "", dump: str | None = None
    ) -> Replay:
        """Run what a step ran up to its guard again in the last session; it writes no dump."""
        built, fed, microbatches = self.built, self._fed_gradients, self.built.microbatches
        if microbatches is not None and call is microbatches.accumulation.bad_call:
            built, fed = replace(built, inputs=microbatches.inputs, tensors={}, statistics={}), {}
        return replay(
            SessionTracer(built, self._session, cast("FedCall", call), fed, self._writes), evidence, limits=limits
        )


class _Value:
    """Reads a variable by a session, without the infinities that are meant."""

    def __init__(self, variable: Any, session: Any, infinities: SessionInfinities) -> None:
        self._variable, self._session, self._infinities = variable, session, infinities

    def numpy(self) -> Any:
        """Return the value; an empty array where the session is over."""
        try:
            value = self._session.run(self._variable)
        except (RuntimeError, AttributeError, tf.errors.OpError):
            return np.zeros(0)
        return cleared(value, self._infinities.mask_of(handle_of(self._variable)))


def _list_as_train_op(built: Built) -> None:
    listed = built.graph.get_collection_ref(tf.compat.v1.GraphKeys.TRAIN_OP)
    own = set(built.update_ops)
    listed[:] = [op for op in listed if op not in own] + [built.train_op]
