"""Small compiled steps whose updates are guarded."""

from __future__ import annotations

import tensorflow as tf

from tb_nanwatch.watch.guard.updates import GuardedUpdates
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.row.inputs import StepInputs

RATE = 1.0
"""The constant that an update adds; a row has one cell for the constants of its update."""


class Step:
    """A compiled step over scalar variables, whose one update adds a constant to each."""

    def __init__(self, *variables, policy="raise", listed=(), run=1, jit_compile=False):
        self.variables, self.run_number = variables, run
        self.plan = Plan(listed, window=8, policy=policy)
        self.updates = GuardedUpdates(self.plan, policy=policy)
        self.trace = tf.function(self._trace, jit_compile=jit_compile, autograph=False)

    def _trace(self, gradients, *, clip=None, loss=None, tensors=()):
        for name, value in tensors:
            self.plan.tensors_of(0).add(name, value)
        clipped = gradients if clip is None else clip(gradients)
        inputs = StepInputs.checked(
            [*zip(clipped, self.variables, strict=True)],
            raw=None if clip is None else gradients,
            loss=loss,
            step=None,
        )
        self.updates.apply(inputs, self._update, run=self.run_number)

    def _update(self):
        for variable in self.variables:
            variable.assign_add(RATE)

    def take(self, *gradients, **given):
        self.trace([tf.constant(gradient) for gradient in gradients], **given)

    @property
    def names(self):
        return [variable.name for variable in self.plan.layout.variables]
