"""The watch: what a training loop holds on to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Policy, Replay, Verdict
from tb_nanwatch.watch.drivers.function import StepFunction
from tb_nanwatch.watch.drivers.loop import Loop
from tb_nanwatch.watch.drivers.options import LoopOptions, checked_variables, directory_of
from tb_nanwatch.watch.drivers.session_v1.runs import SessionRuns
from tb_nanwatch.watch.drivers.strategy import (
    can_meet,
    is_last_here,
    own_inputs,
    replica_context,
    replica_here,
    together,
)
from tb_nanwatch.watch.drivers.updating import UpdateMethod
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.replay import Evidence, current_trial, replay
from tb_nanwatch.watch.replay.one_replica import replay_of_replica
from tb_nanwatch.watch.row.inputs import StepInputs, loss_scale_of, session_loss_scale_of
from tb_nanwatch.watch.row.measure import Seldom
from tb_nanwatch.watch.row.plan import Plan
from tb_nanwatch.watch.row.rates import rate_known
from tb_nanwatch.watch.session_graph import is_session_graph
from tb_nanwatch.watch.tf_internals import autograph_status, converted_method

_T = TypeVar("_T")


class Watch:
    """Watches a training loop and says which step, layer and phase were first when something turns to NaN or Inf.

    Each step leaves a few numbers for each variable in device memory; the host reads them every ``window`` steps and
    writes them to an event file in ``LOGDIR/nanwatch``. The update of a bad step is withheld, so that the state
    before it is still there to be looked at.

    Example:
        >>> import tempfile, tensorflow as tf, keras, tb_nanwatch
        >>> weight, optimizer = keras.Variable([1.0, 2.0], name="weight"), keras.optimizers.SGD(0.1)
        >>> watch = tb_nanwatch.Watch(tempfile.mkdtemp(), [weight])
        >>> @watch.step
        ... def train_step(x):
        ...     with tf.GradientTape() as tape:
        ...         loss = tf.reduce_sum(tf.math.log(weight * x))
        ...     gradients = tape.gradient(loss, [weight.value])
        ...     watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)
        ...     return loss
        >>> float(train_step(tf.constant([1.0, 0.5])))
        0.0
        >>> train_step(tf.constant([0.0, 0.5]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        tb_nanwatch.errors.NonFiniteError: Step 1: -Inf first appeared in the output of Log...
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        variables: Iterable[Any] | None = None,
        *,
        policy: Policy = "raise",
        window: int = 256,
        replay: bool = True,
        save_batch: bool = True,
        keep_dump: bool = False,
        max_skips: int = 10,
        on_nonfinite: Callable[[Verdict], object] | None = None,
        step: Any = None,
        run_name: str | None = None,
        flush_interval_s: float = 10.0,
    ) -> None:
        """Prepare a watch; nothing is written before the first step.

        Args:
            logdir: TensorBoard's log directory for this run; ``~`` is the user's home. If it cannot be written to, or
                is deleted while training, there is one warning, and training goes on.
            variables: the trainable variables, in the order in which they are to be shown; by default those of the
                first :meth:`apply_gradients`.
            policy: ``"raise"`` ends a bad step with :class:`~tb_nanwatch.NonFiniteError`, its update withheld;
                ``"skip"`` leaves its update out, puts back what its forward pass changed, and goes on; ``"record"``
                only watches.
            window: how many steps the flight recorder holds, and at most pass between two reads by the host.
            replay: whether a bad step is run again, by policy ``"raise"``, with every operation looked at, to name the
                one where the first bad value arose. It changes nothing, and takes 120 seconds at most.
            save_batch: whether the arguments of a bad step are saved in ``LOGDIR/batches``, for
                :func:`tb_nanwatch.load_batch`; of more than 64 MB only the bad samples are.
            keep_dump: whether TensorFlow's debugger writes down the replay too, for the Debugger V2 tab: a folder
                ``LOGDIR/debugger/step-N`` for ``tensorboard --logdir``.
            max_skips: how many bad steps in a row the policy ``"skip"`` leaves out before it gives up and raises.
            on_nonfinite: called with the verdict at each bad step that is told, before the policy acts.
            step: an integer variable that counts steps; by default they are counted from 0.
            run_name: a sub-directory of ``logdir`` for this run.
            flush_interval_s: seconds between two reads by the host when steps are slow.

        Raises:
            SetupError: if an argument has no meaning.
        """
        directory = directory_of(logdir, run_name)
        self._step = step
        self._steps: list[StepFunction] = []
        options = LoopOptions(
            policy=policy,
            window=window,
            flush_interval_s=flush_interval_s,
            logdir=directory,
            replay=replay,
            save_batch=save_batch,
            keep_dump=keep_dump,
            max_skips=max_skips,
            on_nonfinite=on_nonfinite,
        )
        self._plan = Plan(checked_variables(variables), window=window, policy=policy)
        self._loop = Loop(options, self._plan, Writer(directory))
        # Around all that is done after a step.
        self.boundary = self._loop.boundary
        self.session_runs = SessionRuns(self._loop, self._plan)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be copied or pickled.

        Raises:
            SetupError: always: a watch belongs to the variables and the steps of one training.
        """
        raise SetupError(
            "a Watch cannot be copied or pickled: it belongs to the variables and the steps of one training; make a new"
            " Watch for the copy, with a run_name of its own, or leave the watch out of what is copied"
        )

    def step(self, function: Callable[..., Any] | None = None, **tf_function_options: Any) -> Any:
        """Make a training step whose bad steps are caught: a decorator, with or without arguments.

        Args:
            function: a Python function or method, which becomes a ``tf.function``, or one that is a ``tf.function``
                already.
            **tf_function_options: passed on to ``tf.function``, such as ``jit_compile=True``.

        Returns:
            A callable that takes and returns what ``function`` does, and by policy ``"raise"`` ends a bad step with
            :class:`~tb_nanwatch.NonFiniteError`.
        """
        if function is None:
            return lambda decorated: self.step(decorated, **tf_function_options)
        step = StepFunction(function, self._loop, **tf_function_options)
        self._steps.append(step)
        return step

    def replay_step(self, *args: Any, **kwargs: Any) -> Verdict:
        """Run a step with every operation looked at and nothing changed by it, as is done with a bad step.

        For a step that is under suspicion: with the arguments that were saved of it, say, and the variables of the
        checkpoint before it. Nothing is written to the log.

        Args:
            *args: of the step; for a method, the instance first.
            **kwargs: of the step.

        Returns:
            Status ``"finite"`` if all was; else ``"nonfinite"``, with the operation that was first and the chain of
            operations from there. Its step is the number that the next step will have.

        Raises:
            SetupError: if the watch has no step, or several, or this one cannot be run so.

        Example:
            >>> import tempfile, tensorflow as tf, keras, tb_nanwatch
            >>> rate, optimizer = keras.Variable(1.0, name="rate"), keras.optimizers.SGD(0.1)
            >>> watch = tb_nanwatch.Watch(tempfile.mkdtemp(), [rate])
            >>> @watch.step
            ... def train_step(x):
            ...     with tf.GradientTape() as tape:
            ...         loss = tf.reduce_sum(tf.math.log(rate * x))
            ...     watch.apply_gradients(optimizer, zip(tape.gradient(loss, [rate.value]), [rate]), loss=loss)
            >>> watch.replay_step(tf.constant([0.5, 0.0])).first.op.type
            'Log'
        """
        if len(self._steps) != 1:
            raise SetupError(f"replay_step must have one step to run: this watch decorated {len(self._steps)}")
        return self._loop.replay_step(self._steps[0].call(args, kwargs))

    def apply_gradients(
        self,
        optimizer: Any,
        grads_and_vars: Iterable[tuple[Any, Any]],
        *,
        raw: Sequence[Any] | None = None,
        loss: Any = None,
        global_step: Any = None,
    ) -> Any:
        """Measure gradients, then let the optimizer apply them, unless the policy withholds the update of a bad step.

        Args:
            optimizer: its ``apply_gradients`` is called with the pairs, and with ``global_step`` if that is given. One
                that is written by hand may take two lists, gradients and variables, in ``apply_gradients`` or
                ``apply``.
            grads_and_vars: pairs of gradient (after clipping; ``None`` for a variable without one) and variable.
            raw: the gradients before clipping, in the same order; by default those in the pairs.
            loss: the loss, a scalar or one for each sample.
            global_step: a variable that counts steps, as optimizers of TensorFlow 1 take it.

        Returns:
            What ``optimizer.apply_gradients`` returns, as far as the guard can pass it on.

        Raises:
            SetupError: if ``raw`` does not match the pairs, there is no gradient at all, or the optimizer cannot be
                called so.
            NonFiniteError: in an eager step outside :meth:`step`, by policy ``"raise"``.
        """
        # AutoGraph has nothing to convert in here, but there may be something in the user's optimizer.
        caller = None if tf.executing_eagerly() else autograph_status()
        return self._apply(optimizer, grads_and_vars, raw=raw, loss=loss, global_step=global_step, caller=caller)

    @tf.autograph.experimental.do_not_convert
    def _apply(
        self,
        optimizer: Any,
        grads_and_vars: Iterable[tuple[Any, Any]],
        *,
        raw: Sequence[Any] | None,
        loss: Any,
        global_step: Any,
        caller: Any,
    ) -> Any:
        step = self._step if self._step is not None else global_step
        pairs = list(grads_and_vars)
        extra = {} if global_step is None else {"global_step": global_step}
        if is_session_graph():
            given = StepInputs.checked(pairs, raw=raw, loss=loss, step=None, in_session=True)
            scale = session_loss_scale_of(optimizer)
            given = given._replace(scale=scale, is_unscaled=scale is not None)
            return self.session_runs.apply_gradients(optimizer, given, step=step, extra=extra)
        method = UpdateMethod.of(optimizer)
        inputs = StepInputs.checked(pairs, raw=raw, loss=loss, step=step)
        self.prepare(optimizer, inputs.variables)
        inputs = inputs._replace(scale=loss_scale_of(optimizer))
        if caller is not None:
            method = method._replace(call=converted_method(method.call, caller))
        with rate_known(optimizer) as scalars:
            return self.guarded(inputs._replace(scalars=scalars), lambda pairs: method(pairs, **extra))

    def prepare(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Build an optimizer that is not, for the variables that it updates."""
        self._plan.prepare(optimizer, variables)

    def guarded(self, inputs: StepInputs, update: Callable[[Sequence[tuple[Any, Any]]], Any]) -> Any:
        """Measure a step, and let its update run if the policy does."""
        trial = current_trial()
        if trial is not None:
            return trial.apply(own_inputs(inputs), update) if trial.watch is self._loop else update(inputs.pairs)

        self._loop.note_update()
        context = replica_context()
        if context is None:
            return self._guarded(inputs, update)
        if not can_meet(context.strategy):
            self._plan.pass_over(context.strategy)
            return update(inputs.pairs)
        self._loop.run_again = self._replayed
        return together(context, inputs, update, guarded=self._guarded)

    def _replayed(self, call: Call, evidence: Evidence, **given: Any) -> Replay:
        plan = self._plan
        if plan.replicas is None or plan.bad_replica is None:
            return replay(call, evidence, **given)
        bad, is_inside = plan.bad_replica, plan.is_step_inside
        return replay_of_replica(call, evidence, replicas=plan.replicas, place=bad, is_inside=is_inside, **given)

    def _guarded(self, inputs: StepInputs, update: Callable[[Sequence[tuple[Any, Any]]], Any]) -> Any:
        def guarded() -> Any:
            return self._plan.guarded(inputs, lambda: update(inputs.pairs), run=self._loop.current_run)

        if self._loop.current_run:
            return guarded()
        if tf.executing_eagerly():
            return self._loop.run(guarded, None)
        self._loop.join_outer()
        return guarded()

    @tf.autograph.experimental.do_not_convert
    def accumulate(self, grads_and_vars: Iterable[tuple[Any, Any]], *, loss: Any = None) -> list[tuple[Any, Any]]:
        """Measure one micro-batch of a step that adds up the gradients of several before its one update.

        Call it for each micro-batch, from the first on, and :meth:`apply_gradients` with the total. Where the gradients
        of some variables are taken apart from those of others, call it for each part: they are of one micro-batch.

        In a graph of TensorFlow 1 call it once, for all of them and before :meth:`apply_gradients`: from then on each
        run of the session that fetches these gradients, and does not train, is a micro-batch of the next that does.

        Args:
            grads_and_vars: pairs of the micro-batch's gradient and variable.
            loss: of the micro-batch, a scalar or one for each sample.

        Returns:
            The pairs, unchanged.

        Raises:
            SetupError: if there is no gradient at all; in a graph of TensorFlow 1, if it comes twice or too late.
        """
        in_session = is_session_graph()
        inputs = StepInputs.checked(
            list(grads_and_vars), raw=None, loss=loss, step=None, in_session=in_session, caller="accumulate"
        )
        if in_session:
            self.session_runs.accumulate(inputs)
            return list(inputs.pairs)
        trial = current_trial()
        if replica_context() is not None:
            self._plan.pass_over_microbatches()
        elif trial is None:
            self._loop.note_accumulation()
            self._plan.accumulate(inputs)
        elif trial.watch is self._loop:
            trial.accumulate(inputs)
        return list(inputs.pairs)

    def look_first_at(self, model: Any, *, microbatches: int = 1) -> None:
        """Watch a model's variables, in its order, before any that the first update brings; for whoever wraps a loop.

        Args:
            model: that is trained; layers and variables are named by their place in it.
            microbatches: how many steps in a row add up to one update, where the optimizer does that.
        """
        variables = model.trainable_variables
        self._plan.know_model(model)
        self._plan.expect(variables)
        self._plan.microbatches_a_step = microbatches

    def name_of_layer(self, layer: Any) -> str:
        """Return the name of a Keras layer: its path, or where two layers share that, its place in the model."""
        return self._plan.name_of_layer(layer)

    def run(self, step: Callable[[], _T], find_call: Callable[[], Call | None]) -> _T:
        """Run a step that somebody else made, and raise if it was bad and the policy says so.

        Args:
            step: one step, or several.
            find_call: asked for the function and the batch of a bad step; ``None`` where they are not known.
        """
        return self._loop.run(step, None, find_call)

    @contextmanager
    def tracing(self, batch: Any) -> Iterator[None]:
        """Trace a step that somebody else made, from its beginning to its end.

        Args:
            batch: a structure of the tensors that it is given.
        """
        if current_trial() is not None:
            yield
            return
        graph = tf.compat.v1.get_default_graph()
        self._plan.is_step_inside = replica_context() is not None
        self._plan.stash.offer(graph, batch, replica=replica_here())
        self._plan.be_lenient(graph)
        self._loop.step_begins(graph, can_begin_again=True)
        yield
        if is_last_here():
            self._loop.step_traced(graph)

    def keep_batch_after(self, batch: Any) -> None:
        """Keep the batch of a step that XLA compiled, in the graph that calls it, if the step was bad."""
        if self._plan.recorder is not None and current_trial() is None:
            self._plan.stash.keep_after(batch, self._plan.recorder.waiting())

    @property
    def withholds(self) -> bool:
        """Whether the policy withholds the update of a bad step."""
        return self._loop.options.policy != "record"

    def eager_step_begins(self) -> None:
        """Know that an eager step begins that somebody else made: all its updates belong together."""
        self._plan.begin_eager()

    def is_eager_step_bad(self) -> bool:
        """Return whether the eager step that came last was found bad."""
        return self._plan.is_eager_step_bad()

    def take_batch(self) -> Any:
        """Return the batch of the bad step that was met last, as it was given to :meth:`tracing`."""
        return self._plan.take_batch()

    def tensor(self, name: str, value: tf.Tensor) -> tf.Tensor:
        """Watch one more tensor, such as an activation, in each step; call it before :meth:`apply_gradients`.

        Args:
            name: how it is shown.
            value: floating, any shape.

        Returns:
            ``value``, unchanged.

        Raises:
            SetupError: if ``value`` is not floating.
        """
        trial = current_trial()
        if trial is None:
            self._plan.tensors_of(replica_here()).add(name, value)
        elif trial.watch is self._loop:
            trial.tensors[name] = value
        return value

    def tensor_if(self, name: str, value: tf.Tensor, *, is_due: tf.Tensor) -> None:
        """Watch one more tensor in the steps where ``is_due`` is true; in the others it costs nothing.

        Args:
            name: how it is shown.
            value: floating, any shape.
            is_due: bool scalar.
        """
        if current_trial() is None:
            self._plan.tensors_of(replica_here()).add(name, Seldom(value, is_due))

    def session_run(
        self,
        session: Any,
        fetches: Any,
        feed_dict: Mapping[Any, Any] | None = None,
        *,
        options: Any = None,
        run_metadata: Any = None,
    ) -> Any:
        """Run a session of TensorFlow 1 once: in the place of ``session.run``, where there is no ``NanWatchHook``.

        Args:
            session: of the graph that :meth:`apply_gradients` was called in.
            fetches: as for ``session.run``; a run that does not train is left as it is.
            feed_dict: likewise; of a bad step, it is the batch.
            options: likewise.
            run_metadata: likewise.

        Returns:
            What ``session.run`` returns.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        arguments = {"feed_dict": feed_dict, "options": options, "run_metadata": run_metadata}
        return self.session_runs.run(session, fetches, **arguments)

    def after_step(self) -> None:
        """Check and record after a step that is not called through :meth:`step`.

        Raises:
            NonFiniteError: by policy ``"raise"``; the update of the bad step, and of every step since, was withheld.
        """
        self._loop.after_step(None)

    def close(self) -> None:
        """Write what is left and close the event file; a watch that is not closed does so when the program ends.

        Raises:
            NonFiniteError: by policy ``"raise"``, if the last update left a variable non-finite.
        """
        self._loop.close()

    def __enter__(self) -> Watch:  # noqa: PYI034 - Self came with Python 3.11
        """Return the watch itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the watch; an error that is on its way is not replaced by another."""
        self._loop.close(quietly=error is not None)
