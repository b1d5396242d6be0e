"""What the policy acts upon once the host has looked at a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tb_nanwatch.errors import NonFiniteError
from tb_nanwatch.schema.records import Alert, Verdict
from tb_nanwatch.watch.boundary import attempt


class Outcome(NamedTuple):
    """A bad step.

    Attributes:
        verdict: on the run.
        alert: of the bad step; ``None`` where the watch failed before there was one.
        message: what the exception says.
        is_error: whether the policy raises.
        is_reported: whether ``on_nonfinite`` is called with the verdict.
    """

    verdict: Verdict
    alert: Alert | None
    message: str
    is_error: bool
    is_reported: bool

    @classmethod
    def without_verdict(
        cls, *, run: str, step: int | None, steps_seen: int, reason: str, alert: Alert | None
    ) -> Outcome:
        """Return the outcome of a step that is known to be bad, where the watch failed to find out more.

        Args:
            run: its name.
            step: the bad step; ``None`` where that is not known either.
            steps_seen: by the host.
            reason: why the watch failed.
            alert: of the bad step, if there is one.
        """
        which = "A step" if step is None else f"Step {step}"
        text = f"{which} was not finite. What was first in it is not known, because tb_nanwatch failed: {reason}."
        verdict = Verdict(run, "nonfinite", text, steps_seen)
        return cls(verdict, alert, text, is_error=True, is_reported=False)

    def act(self, on_nonfinite: Callable[[Verdict], object] | None) -> None:
        """Call the user's function, and raise if the policy does.

        Raises:
            NonFiniteError: if the policy says so.
        """
        call = on_nonfinite if self.is_reported else None
        if not self.is_error:
            if call is not None:
                call(self.verdict)
            return
        if call is not None:
            # An error of the user's own must not hide what it was called for.
            attempt(partial(call, self.verdict), failed=_warn_of_callback)
        # TensorFlow's own account of the failed assertion says nothing that the verdict does not.
        raise NonFiniteError(self.message, verdict=self.verdict, alert=self.alert) from None


def _warn_of_callback(reason: str) -> None:
    warnings.warn(f"on_nonfinite failed: {reason}", stacklevel=2)
