"""A replay of a step that ran on many devices: of what one replica did, by itself, up to its gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.replay.again import Evidence, replay
from tb_nanwatch.watch.replay.run import CannotReplayError
from tb_nanwatch.watch.replay.trial import current_trial
from tb_nanwatch.watch.row.replicas import Replicas, components
from tb_nanwatch.watch.tf_internals import (
    autograph_status,
    converted_for,
    regrouped,
    replica_context_of,
    share_of_replica,
)

_NOT_ALONE: Final = (
    "The step could not be run again: it ran on many devices, and of such a step only what one replica computes up to"
    " its gradients can be."
)


def replay_of_replica(
    call: Call, evidence: Evidence, *, replicas: Replicas, place: int, is_inside: bool, **given: Any
) -> Replay:
    """Run what one replica did in a step again; see :func:`~tb_nanwatch.watch.replay.again.replay`.

    The other replicas are not run, so nothing is reduced, and no process waits for another.

    Args:
        call: of the step, with the replica's part of the batch.
        evidence: what is known of it.
        replicas: that the step ran on.
        place: of the replica in this process.
        is_inside: whether the function of the call is what a replica runs, and not what runs the replicas.
        **given: the other arguments of a replay.

    Returns:
        What came of it; failed where the update itself is in question.
    """
    if evidence.scope not in ("gradients", "state"):
        return Replay("failed", (_NOT_ALONE,))
    own = replace(evidence, variables=components(evidence.variables, place))
    with _alone(replicas, place) as context:
        alone = call._replace(function=_in(context, call.function)) if is_inside else call
        return replay(alone, own, **given)


@contextmanager
def _alone(replicas: Replicas, place: int) -> Iterator[Callable[[], Any]]:
    """Let the strategy run one replica where it would run all, in this thread."""
    extended, strategy = replicas.strategy.extended, replicas.strategy

    def context() -> Any:
        return replica_context_of(strategy, replica=replicas.first + place)

    def run(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        converted = converted_for(function, autograph_status())
        selected = share_of_replica(place, (args or (), kwargs or {}))
        with context():
            result = converted(*selected[0], **selected[1])
        # What comes after may reduce what all replicas returned.
        return regrouped([_copied(result) for _ in replicas.devices])

    instead: dict[str, Callable[..., Any]] = {
        "_call_for_each_replica": run,
        "_reduce_to": lambda _, value, *others, **options: _unreduced(value),
        "_batch_reduce_to": lambda _, pairs, *others, **options: [_unreduced(value) for value, _ in pairs],
        "_gather_to_implementation": lambda value, *others, **options: _unreduced(value),
    }
    with ExitStack() as stack:
        for name, function in instead.items():
            stack.enter_context(_replaced(extended, name, function))
        yield context


@contextmanager
def _replaced(extended: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    setattr(extended, name, function)
    try:
        yield
    finally:
        # It shadowed the method of the class.
        delattr(extended, name)


def _unreduced(value: Any) -> Any:
    """Return what would be reduced over replicas or processes: once the update is reached, the result is no matter.

    Processes number their collectives as they trace them, so one that traced more than the others would wait for ever.
    """
    trial = current_trial()
    if trial is not None and not trial.given:
        raise CannotReplayError("computes with what is reduced over replicas, of which one alone can be run again")
    return value


def _in(context: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    # The arguments keep the names that they have in the function.
    @functools.wraps(function)
    def step(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return step


def _copied(result: Any) -> Any:
    return tf.nest.map_structure(lambda one: tf.identity(one) if isinstance(one, tf.Tensor) else one, result)
