"""The options of a watch, checked where the user gives them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Policy, Verdict


@dataclass(frozen=True)
class LoopOptions:
    """The options that the user chose.

    Attributes:
        policy: what happens at a bad step.
        window: steps between two reads of the device.
        flush_interval_s: seconds between two reads when steps are slow.
        logdir: the run's directory.
        replay: whether a bad step is replayed.
        save_batch: whether its arguments are saved.
        keep_dump: whether TensorFlow's debugger also dumps the replay.
        max_skips: the policy ``"skip"`` raises once so many steps in a row were bad.
        on_nonfinite: called with the verdict of each alert.
    """

    policy: Policy
    window: int
    flush_interval_s: float
    logdir: str
    replay: bool = True
    save_batch: bool = True
    keep_dump: bool = False
    max_skips: int = 10
    on_nonfinite: Callable[[Verdict], object] | None = None

    @property
    def withholds(self) -> bool:
        """Whether the policy withholds the update of a bad step."""
        return self.policy != "record"

    @property
    def run(self) -> str:
        """The run's name: the last part of its directory."""
        return os.path.basename(os.path.abspath(self.logdir))

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            SetupError: if an option is invalid.
        """
        if self.policy not in get_args(Policy):
            raise SetupError(f"policy must be one of {', '.join(map(repr, get_args(Policy)))}; got {self.policy!r}")
        whole: dict[str, Any] = {"window": self.window, "max_skips": self.max_skips}
        for name, value in whole.items():
            if not isinstance(value, int) or value < 1:
                raise SetupError(f"{name} must be a positive whole number; got {value!r}")
        if not self.flush_interval_s > 0:
            raise SetupError(f"flush_interval_s must be positive; got {self.flush_interval_s!r}")
        if self.on_nonfinite is not None and not callable(self.on_nonfinite):
            raise SetupError(f"on_nonfinite must be a function that takes a verdict; got {self.on_nonfinite!r}")


def directory_of(logdir: Any, run_name: str | None) -> str:
    """Return a run's directory; ``~`` is the user's home, as for TensorBoard and ``nanwatch``.

    Raises:
        SetupError: if ``logdir`` is not a path.
    """
    try:
        path = os.path.join(os.path.expanduser(os.fspath(logdir)), run_name or "")
    except TypeError:
        raise SetupError(f"logdir must be a path, such as 'runs/critic'; got {logdir!r}") from None
    return path.rstrip(os.sep) or path


def checked_variables(variables: Any) -> Iterable[Any]:
    """Return the variables that the user gave; none for ``None``.

    Raises:
        SetupError: if they are not a list of variables.
    """
    must = "variables must be a list of variables, such as model.trainable_variables"
    if variables is None:
        return ()
    if hasattr(variables, "assign") or not hasattr(variables, "__iter__"):
        raise SetupError(f"{must}; got a {type(variables).__name__}")
    listed = list(variables)
    wrong = next((value for value in listed if not hasattr(value, "assign")), None)
    if wrong is not None:
        raise SetupError(f"{must}; among them is a {type(wrong).__name__}")
    return listed
