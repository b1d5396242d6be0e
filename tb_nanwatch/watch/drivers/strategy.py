"""Many devices: a step that a strategy of ``tf.distribute`` runs on several of them.

Each replica calls ``apply_gradients`` with its own gradients, and the optimizer reduces them. The replicas meet there:
the watch measures the inputs of each, and one guard decides for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.replicas import Replicas, components
from tb_nanwatch.watch.tf_internals import current_replica, has_merge_call, share_of_replica

_MEETING: Final = (
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.OneDeviceStrategy,
)
_Update = Callable[[Sequence[tuple[Any, Any]]], Any]


@dataclass(frozen=True, eq=False)
class _Share:
    """What one replica brings to the meeting; ``tf.distribute`` passes it on unchanged."""

    inputs: StepInputs
    update: Callable[[], Any]
    guarded: Callable[[StepInputs, _Update], Any]


def replica_context() -> Any:
    """Return the context of the replica that is traced or run now; ``None`` if no strategy runs this code."""
    return tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None


def replica_here() -> int:
    """Return the number, within this process, of the replica that is traced or run now; 0 for none."""
    return 0 if replica_context() is None else current_replica() or 0


def is_last_here() -> bool:
    """Return whether the current replica is the last of this process."""
    context = replica_context()
    return context is None or replica_here() == len(context.strategy.extended.worker_devices) - 1


def can_meet(strategy: Any) -> bool:
    """Return whether the replicas of a strategy meet at one place of one graph."""
    return isinstance(strategy, _MEETING) and has_merge_call(strategy)


def together(
    context: Any, inputs: StepInputs, update: _Update, *, guarded: Callable[[StepInputs, _Update], Any]
) -> Any:
    """Guard the updates of all replicas at once, when the last of them is here.

    Args:
        context: of this replica.
        inputs: of this replica's step.
        update: applies this replica's gradients.
        guarded: called once, with the first replica's inputs, which hold those of the others.
    """
    return context.merge_call(_met, args=(_Share(inputs, lambda: update(inputs.pairs), guarded),))


def is_spread(strategy: Any) -> bool:
    """Return whether a strategy runs a step on several devices, and its replicas meet in one graph."""
    return can_meet(strategy) and strategy.num_replicas_in_sync > 1


def built_together(context: Any, build: Callable[[], None]) -> None:
    """Make variables that all replicas share, once, outside of the traced step."""

    def built(strategy: Any) -> None:
        with tf.init_scope(), strategy.scope():
            build()

    context.merge_call(built)


def own_inputs(inputs: StepInputs) -> StepInputs:
    """Return a replica's inputs with its own variables instead of the ones that all replicas share."""
    if replica_context() is None:
        return inputs
    own = components(inputs.variables, replica_here())
    return inputs._replace(
        pairs=[(gradient, variable) for (gradient, _), variable in zip(inputs.pairs, own, strict=True)]
    )


def calls_of(call: Call, replicas: Replicas) -> list[Call]:
    """Return a call as each replica of this process makes it: with its own part of the batch."""
    return [
        call._replace(args=_selected(call.args, place), kwargs=_selected(dict(call.kwargs), place))
        for place in range(len(replicas.devices))
    ]


def _met(strategy: Any, regrouped: Any) -> Any:
    shares: tuple[_Share, ...] = strategy.experimental_local_results(regrouped)
    first, *others = shares
    inputs = first.inputs._replace(replicas=Replicas.of(strategy), others=[share.inputs for share in others])

    def update(_: Sequence[tuple[Any, Any]]) -> Any:
        # Run the replicas from inside the guard's branch: from branches of their own they could not meet.
        return strategy.extended.call_for_each_replica(_update_of, args=(regrouped,))

    return first.guarded(inputs, update)


@tf.autograph.experimental.do_not_convert
def _update_of(share: _Share) -> Any:
    return share.update()


def _selected(arguments: Any, place: int) -> Any:
    selected: tuple[Any, ...] | Mapping[str, Any] = share_of_replica(place, arguments)
    return selected
