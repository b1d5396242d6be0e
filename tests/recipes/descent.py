"""The driver of plain gradient descent: the user gives what computes the gradients, and the driver updates."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import tensorflow as tf

from tb_nanwatch.schema.records import Policy, Replay
from tb_nanwatch.watch.drivers.loop import Loop
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.guard.guard import MESSAGE
from tb_nanwatch.watch.guard.updates import GuardedUpdates
from tb_nanwatch.watch.record.batch import Call, StepCall
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.replay import Evidence, ReplayLimits, current_trial
from tb_nanwatch.watch.replay.function_trace import replay_function
from tb_nanwatch.watch.row.inputs import StepInputs


class Descent:
    """Steps of plain gradient descent, watched; a :class:`~tb_nanwatch.watch.drivers.driver.Driver`.

    Example:
        Let a function compute the loss and the gradients::

            step = tb_nanwatch.Descent("runs/critic", gradients, critic.trainable_variables, rate=0.1)
            for x, y in batches:
                step(x, y)
            step.close()
    """

    accumulation = None

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        gradients: Callable[..., tuple[tf.Tensor, Sequence[tf.Tensor]]],
        variables: Sequence[Any],
        *,
        rate: float,
        policy: Policy = "raise",
    ) -> None:
        """Prepare for the first step.

        Args:
            logdir: TensorBoard's log directory for this run.
            gradients: a batch to its loss, a scalar, and to the gradients of the variables.
            variables: to train.
            rate: the learning rate.
            policy: what happens at a bad step; see :class:`~tb_nanwatch.Watch`.
        """
        options = LoopOptions(policy, window=256, flush_interval_s=10.0, logdir=str(logdir))
        self._gradients, self._variables, self._rate = gradients, list(variables), rate
        self._plan = Plan(self._variables, window=options.window, policy=policy)
        self._updates = GuardedUpdates(self._plan, policy=policy)
        self._loop = Loop(self, options, self._plan)
        self._compiled = tf.function(self._step, autograph=False)
        self._last_call: Call | None = None

    def __call__(self, *batch: Any) -> None:
        """Take one step.

        Args:
            *batch: passed on to ``gradients``.

        Raises:
            NonFiniteError: at a bad step, if the policy says so.
        """
        call = self._last_call = Call(self._step, batch, {}, is_converted=False)
        try:
            self._compiled(*batch)
        except tf.errors.OpError as error:
            if MESSAGE in str(error):
                self._loop.step_stopped(call)
            else:
                self._loop.step_failed(error, lambda: call)
            raise
        self._loop.after_step(call)

    def close(self) -> None:
        """Write what is left.

        Raises:
            NonFiniteError: if the last update made a variable non-finite, and the policy says so.
        """
        self._loop.close()

    @property
    def last_call(self) -> Call | None:
        """The call of the step that ran last."""
        return self._last_call

    def calls_of(self, call: StepCall) -> Sequence[StepCall]:
        """Return the call alone: there is one replica."""
        return [call]

    def call_of_bad_step(self, call: StepCall | None) -> StepCall | None:
        """Return the call: nothing else ran since."""
        return call

    def call_of_bad_microbatch(self, call: StepCall) -> StepCall:
        """Return the call: there are no micro-batches."""
        return call

    def last_values(self) -> Sequence[Any]:
        """Return the variables."""
        return self._variables

    def replay(
        self, call: StepCall, evidence: Evidence, *, limits: ReplayLimits, logdir: str = "", dump: str | None = None
    ) -> Replay:
        """Replay a step."""
        return replay_function(cast("Call", call), evidence, watch=self, limits=limits, logdir=logdir, dump=dump)

    def _step(self, *batch: Any) -> None:
        loss, gradients = self._gradients(*batch)
        pairs = list(zip(gradients, self._variables, strict=True))
        inputs, trial = StepInputs.checked(pairs, raw=None, loss=loss, step=None), current_trial()
        if trial is None:
            self._updates.apply(inputs, lambda: self._update(pairs), run=1)
        elif trial.watch is self:
            trial.apply(inputs, self._update)

    def _update(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        for gradient, variable in pairs:
            variable.assign_sub(self._rate * gradient)
