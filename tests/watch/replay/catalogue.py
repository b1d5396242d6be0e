"""All cases there are."""

from __future__ import annotations

from tests.watch.replay.case import Case
from tests.watch.replay.cases import (
    backward,
    batch,
    branches,
    clipping,
    close_together,
    compared,
    diverging,
    domains,
    entries,
    forward,
    gradients,
    guarded,
    healthy,
    layers,
    names,
    policy,
    several,
    state,
    swallowed,
    unusual,
    update,
    updates,
)

_MODULES = (
    batch,
    entries,
    forward,
    domains,
    policy,
    layers,
    names,
    branches,
    state,
    unusual,
    diverging,
    swallowed,
    compared,
    backward,
    gradients,
    several,
    close_together,
    clipping,
    update,
    updates,
    healthy,
    guarded,
)

CASES: tuple[Case, ...] = tuple(
    value for module in _MODULES for value in vars(module).values() if isinstance(value, Case)
)
