"""The watch: the object that a training loop uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Policy, Verdict
from tb_nanwatch.watch.drivers.function import StepFunction
from tb_nanwatch.watch.drivers.options import LoopOptions, checked_variables, directory_of
from tb_nanwatch.watch.drivers.session_v1.runs import SessionRuns
from tb_nanwatch.watch.drivers.steps import Steps
from tb_nanwatch.watch.graphs import is_session_graph
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.tf_internals import autograph_status


class Watch:
    """Watch a training loop, and report the first step, layer and operation where NaN or Inf appeared.

    Each step leaves a few numbers for each variable in device memory: the norms of its gradient, before and after
    clipping, and of the variable itself. The host reads them every ``window`` steps and writes them to an event file
    in ``LOGDIR/nanwatch``. The NaN Watch tab of TensorBoard and the command ``nanwatch LOGDIR`` show them.

    A step is bad if a gradient, the loss, a variable or a watched tensor holds NaN or Inf. The policy decides what
    happens then. By default the update of the bad step is withheld, the step is replayed to find the operation, and
    :class:`~tb_nanwatch.NonFiniteError` is raised. The variables still have their values from before the step.

    Use it in one of these ways:

    - a custom loop: decorate the step with :meth:`step`, and call :meth:`apply_gradients` and not the optimizer;
    - a custom loop whose step stays undecorated: also call :meth:`after_step` after each step;
    - a step that accumulates gradients: call :meth:`accumulate` for each micro-batch as well;
    - a graph of TensorFlow 1: :class:`~tb_nanwatch.NanWatchHook`, or :meth:`session_run` for ``session.run``;
    - ``model.fit``: use :class:`~tb_nanwatch.NanWatchCallback`, which has a watch of its own.

    A watch is a context manager; leaving it calls :meth:`close`. It cannot be copied or pickled.

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
            logdir: TensorBoard's log directory for this run; ``~`` is the user's home. If it cannot be written, or is
                deleted during training, there is one warning, and training goes on.
            variables: the trainable variables, in the order in which the page shows them. The default is the variables
                of the first :meth:`apply_gradients`.
            policy: what happens at a bad step. ``"raise"`` withholds its update and raises
                :class:`~tb_nanwatch.NonFiniteError`. ``"skip"`` withholds its update, restores what its forward pass
                changed, and goes on. ``"record"`` only records it: the update runs, and no operation is named.
            window: the number of steps that the flight recorder holds. The host reads it after at most so many steps.
            replay: whether a bad step is replayed to name the operation where the first bad value arose: each bad step
                under ``"raise"``, the first under ``"skip"``, none under ``"record"``. A replay changes nothing, and
                takes at most 120 seconds.
            save_batch: whether the arguments of a bad step are saved in ``LOGDIR/batches``, for
                :func:`tb_nanwatch.load_batch`. If they take more than 64 MB, only the bad samples are saved.
            keep_dump: whether TensorFlow's debugger also dumps the replay, for the Debugger V2 tab: a folder
                ``LOGDIR/debugger/step-N`` for ``tensorboard --logdir``.
            max_skips: ``"skip"`` raises once so many steps in a row were bad.
            on_nonfinite: called with the verdict of each reported bad step, before the policy acts.
            step: an integer variable that counts steps. By default the watch counts them from 0.
            run_name: a sub-directory of ``logdir`` for this run.
            flush_interval_s: seconds between two reads by the host when steps are slow.

        Raises:
            SetupError: if an argument is invalid.
        """
        options = LoopOptions(
            policy=policy,
            window=window,
            flush_interval_s=flush_interval_s,
            logdir=directory_of(logdir, run_name),
            replay=replay,
            save_batch=save_batch,
            keep_dump=keep_dump,
            max_skips=max_skips,
            on_nonfinite=on_nonfinite,
        )
        plan = Plan(checked_variables(variables), window=window, policy=policy)
        self._step = step
        self._functions: list[StepFunction] = []
        self._steps = Steps(options, plan)
        self._session_runs = SessionRuns(self._steps.loop, plan)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be copied or pickled.

        Raises:
            SetupError: always, because a watch belongs to the variables and the steps of one training.
        """
        raise SetupError(
            "a Watch cannot be copied or pickled: it belongs to the variables and the steps of one training; make a new"
            " Watch for the copy, with a run_name of its own, or leave the watch out of what is copied"
        )

    def step(self, function: Callable[..., Any] | None = None, **tf_function_options: Any) -> Any:
        """Return a training step that is watched; a decorator, with or without arguments.

        It replaces ``tf.function``. The returned step catches the failure of a bad step, so that the watch can replay
        it and report the verdict.

        Args:
            function: a Python function or method, which becomes a ``tf.function``, or a ``tf.function``.
            **tf_function_options: options for ``tf.function``, such as ``jit_compile=True``. A function that is a
                ``tf.function`` already keeps its own.

        Returns:
            A callable with the arguments and the result of ``function``. It raises
            :class:`~tb_nanwatch.NonFiniteError` at a bad step, if the policy says so.

        Raises:
            SetupError: if options are given for a function that is a ``tf.function`` already.

        Example:
            Compile the step with XLA::

                @watch.step(jit_compile=True)
                def train_step(x, y): ...
        """
        if function is None:
            return lambda decorated: self.step(decorated, **tf_function_options)
        step = StepFunction(function, self._steps, **tf_function_options)
        self._functions.append(step)
        return step

    def replay_step(self, *args: Any, **kwargs: Any) -> Verdict:
        """Replay a step by hand: run it once, observe every operation, and change nothing.

        Use it for a suspicious step, for example with its saved arguments and the variables of the checkpoint before
        it. It writes nothing to the log.

        Args:
            *args: positional arguments of the step; for a method, the instance first.
            **kwargs: keyword arguments of the step.

        Returns:
            A verdict. Its status is ``"finite"`` if every value was finite, else ``"nonfinite"``; then ``first`` is the
            origin, and ``chain`` the operations from there. Its step is the number that the next step will have.

        Raises:
            SetupError: if the watch decorated no step or several steps, or cannot replay this step.

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
        if len(self._functions) != 1:
            raise SetupError(f"replay_step must have one step to run: this watch decorated {len(self._functions)}")
        return self._steps.replay_step(self._functions[0].call(args, kwargs))

    def apply_gradients(
        self,
        optimizer: Any,
        grads_and_vars: Iterable[tuple[Any, Any]],
        *,
        raw: Sequence[Any] | None = None,
        loss: Any = None,
        global_step: Any = None,
    ) -> Any:
        """Measure the gradients, then let the optimizer apply them; the policy may withhold the update of a bad step.

        Call it once for each optimizer of a step. In a graph of TensorFlow 1, call it once, before the session is made.

        Args:
            optimizer: a Keras optimizer, or one of TensorFlow 1. Its ``apply_gradients`` is called with the pairs, and
                with ``global_step`` if that is given. An optimizer written by hand may instead take two lists,
                gradients and variables, in ``apply_gradients`` or ``apply``.
            grads_and_vars: pairs of a gradient after clipping and its variable. A gradient is floating and has the
                shape of its variable, or is ``None`` for a variable without a gradient.
            raw: the gradients before clipping, in the same order. By default the gradients of the pairs, which then
                count as not clipped.
            loss: the loss, a number: a scalar, or one for each sample ``[batch]``. Without it, a bad loss cannot be
                distinguished from a bad gradient.
            global_step: a variable that counts steps, for optimizers of TensorFlow 1.

        Returns:
            The result of ``optimizer.apply_gradients``, as far as the guard can pass it on.

        Raises:
            SetupError: if ``raw`` does not match the pairs, there is no gradient at all, ``loss`` is not a number, or
                the optimizer cannot be called in any of these forms.
            NonFiniteError: at a bad eager step outside :meth:`step`, if the policy says so.

        Example:
            Clip the gradients, and show the norms before and after it::

                clipped, _ = tf.clip_by_global_norm(gradients, 15.0)
                watch.apply_gradients(optimizer, zip(clipped, variables), raw=gradients, loss=loss)
        """
        # AutoGraph has nothing to convert here, but it may convert the user's optimizer.
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
        pairs, step = list(grads_and_vars), self._step if self._step is not None else global_step
        extra = {} if global_step is None else {"global_step": global_step}
        if is_session_graph():
            return self._session_runs.apply_gradients(optimizer, pairs, raw=raw, loss=loss, step=step, extra=extra)
        return self._steps.apply_gradients(optimizer, pairs, raw=raw, loss=loss, step=step, extra=extra, caller=caller)

    @tf.autograph.experimental.do_not_convert
    def accumulate(self, grads_and_vars: Iterable[tuple[Any, Any]], *, loss: Any = None) -> list[tuple[Any, Any]]:
        """Measure one micro-batch of a step that accumulates the gradients of several before its update.

        Call it for each micro-batch, from the first on, and :meth:`apply_gradients` with the total. If you compute the
        gradients of some variables apart from those of others, call it for each part: all parts count as one
        micro-batch.

        In a graph of TensorFlow 1, call it once, for all gradients and before :meth:`apply_gradients`. From then on,
        each run of the session that fetches these gradients and does not train is a micro-batch of the next run that
        trains.

        Args:
            grads_and_vars: pairs of the micro-batch's gradient and its variable.
            loss: the loss of the micro-batch, a number: a scalar, or one for each sample ``[batch]``.

        Returns:
            The pairs, unchanged.

        Raises:
            SetupError: if there is no gradient at all; in a graph of TensorFlow 1, if it is called twice or after
                :meth:`apply_gradients`.

        Example:
            Add up the gradients of a micro-batch in variables of the program::

                watch.accumulate(zip(gradients, variables), loss=loss)
                for total, gradient in zip(totals, gradients):
                    total.assign_add(gradient)
        """
        pairs = list(grads_and_vars)
        driver = self._session_runs if is_session_graph() else self._steps
        driver.accumulate(pairs, loss=loss)
        return pairs

    def tensor(self, name: str, value: tf.Tensor) -> tf.Tensor:
        """Watch one more tensor, such as an activation, in each step.

        Call it before :meth:`apply_gradients`. Any NaN or Inf in the tensor makes the step bad, whatever the loss. The
        page shows its norm.

        Args:
            name: shown in the page and the verdict. A second tensor of the same name in a step becomes ``name#2``.
            value: a floating tensor of any shape.

        Returns:
            ``value``, unchanged.

        Raises:
            SetupError: if ``value`` is not floating.

        Example:
            Watch the output of a network::

                values = watch.tensor("values", critic(states))
        """
        self._steps.watch_tensor(name, value)
        return value

    def session_run(
        self,
        session: Any,
        fetches: Any,
        feed_dict: Mapping[Any, Any] | None = None,
        *,
        options: Any = None,
        run_metadata: Any = None,
    ) -> Any:
        """Run a session of TensorFlow 1 once, and watch the run.

        Call it where you called ``session.run``. With a :class:`~tb_nanwatch.NanWatchHook` it is not needed.

        Args:
            session: a session of the graph in which :meth:`apply_gradients` was called.
            fetches: as for ``session.run``. A run that does not train is left as it is.
            feed_dict: as for ``session.run``. For a bad step, this is the batch that is saved and replayed.
            options: as for ``session.run``.
            run_metadata: as for ``session.run``.

        Returns:
            The result of ``session.run``.

        Raises:
            NonFiniteError: at a bad step, if the policy says so.

        Example:
            Run a train operation that :meth:`apply_gradients` built::

                train_op = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss)
                watch.session_run(session, train_op, {x: batch})
        """
        arguments = {"feed_dict": feed_dict, "options": options, "run_metadata": run_metadata}
        return self._session_runs.run(session, fetches, **arguments)

    def after_step(self) -> None:
        """Check and record a step that is not decorated with :meth:`step`.

        Call it after each step, and at least once every ``window`` steps: earlier steps are lost. A bad step is not
        replayed, so no operation is named.

        Raises:
            NonFiniteError: after a bad step, if the policy says so. The update of the bad step, and of every step
                since, was withheld.

        Example:
            Watch a step that is a ``tf.function`` of the program::

                for x, y in batches:
                    train_step(x, y)
                    watch.after_step()
        """
        self._steps.loop.after_step(None)

    def close(self) -> None:
        """Write the remaining steps, check the variables after the final update, and close the event file.

        A watch that is not closed closes itself when the program ends.

        Raises:
            NonFiniteError: under ``"raise"`` and ``"skip"``, if the last update made a variable non-finite; under
                ``"raise"`` also for a bad step that was not checked before.
        """
        self._steps.loop.close()

    def __enter__(self) -> Watch:  # noqa: PYI034 - Self came with Python 3.11
        """Return the watch itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the watch; if the block raised an error, no other error replaces it."""
        self._steps.loop.close(quietly=error is not None)
