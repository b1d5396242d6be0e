"""The replay of a step that ran on many devices: one replica runs again alone, up to its gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.replay.engine import Evidence
from tb_nanwatch.watch.replay.function_trace import replay_function
from tb_nanwatch.watch.replay.step_trace import CannotReplayError
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


def replay_replica(
    call: Call, evidence: Evidence, *, replicas: Replicas, place: int, is_inside: bool, **options: Any
) -> Replay:
    """Run what one replica did in a step again; see :func:`~tb_nanwatch.watch.replay.engine.replay`.

    The other replicas do not run. So nothing is reduced, and no process waits for another.

    Args:
        call: the call of the step, with the replica's part of the batch.
        evidence: what is known of the step.
        replicas: the replicas that the step ran on.
        place: the place of the replica in this process.
        is_inside: whether a replica runs the function of the call, and the function does not run the replicas.
        **options: the other arguments of a replay.

    Returns:
        What was found; failed if the update itself is in question.
    """
    if evidence.scope not in ("gradients", "state"):
        return Replay("failed", (_NOT_ALONE,))
    own = replace(evidence, variables=components(evidence.variables, place))
    with _alone(replicas, place) as context:
        alone = call._replace(function=_within(context, call.function)) if is_inside else call
        return replay_function(alone, own, **options)


@contextmanager
def _alone(replicas: Replicas, place: int) -> Iterator[Callable[[], Any]]:
    """Make the strategy run one replica in this thread, where it would run all."""
    extended, strategy = replicas.strategy.extended, replicas.strategy

    def context() -> Any:
        return replica_context_of(strategy, replica=replicas.first + place)

    def run(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        converted = converted_for(function, autograph_status())
        selected = share_of_replica(place, (args or (), kwargs or {}))
        with context():
            result = converted(*selected[0], **selected[1])
        # Later code may reduce what all replicas returned.
        return regrouped([_copied(result) for _ in replicas.devices])

    replacements: dict[str, Callable[..., Any]] = {
        "_call_for_each_replica": run,
        "_reduce_to": lambda _, value, *others, **options: _unreduced(value),
        "_batch_reduce_to": lambda _, pairs, *others, **options: [_unreduced(value) for value, _ in pairs],
        "_gather_to_implementation": lambda value, *others, **options: _unreduced(value),
    }
    with ExitStack() as stack:
        for name, function in replacements.items():
            stack.enter_context(_replaced(extended, name, function))
        yield context


@contextmanager
def _replaced(extended: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    setattr(extended, name, function)
    try:
        yield
    finally:
        # The attribute hid the method of the class.
        delattr(extended, name)


def _unreduced(value: Any) -> Any:
    """Return the value that would be reduced over replicas or processes. After the update, the result does not matter.

    Processes number their collectives while they trace. A process that traced more than the others would wait forever.
    """
    trial = current_trial()
    if trial is not None and not trial.step_updates:
        raise CannotReplayError("computes with what is reduced over replicas, of which one alone can be run again")
    return value


def _within(context: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    # The arguments keep their names.
    @functools.wraps(function)
    def step(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return step


def _copied(result: Any) -> Any:
    return tf.nest.map_structure(lambda value: tf.identity(value) if isinstance(value, tf.Tensor) else value, result)
