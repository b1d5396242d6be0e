"""Steps and replays that an error of an operation ended: which operation, why, and what was non-finite before it."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.graphs import Op, Tensor
from tb_nanwatch.watch.replay.chain import chains_of
from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.names import Names
from tb_nanwatch.watch.replay.origin import Origins
from tb_nanwatch.watch.replay.phases import Phases
from tb_nanwatch.watch.replay.source_lines import users_line
from tb_nanwatch.watch.replay.step_trace import StepTrace
from tb_nanwatch.watch.replay.walk import Walk

_INDEXED: Final = frozenset({"Gather", "GatherV2", "GatherNd", "ResourceGather", "ResourceGatherNd"})
_RAISED: Final = re.compile(r"\w+(Error|Exception): ")
_NOISE: Final = re.compile(r"\x1b\[[\d;]*m|\{\{function_node [^{}]*\}\}|\[Op:\w*\] name:.*$")
_KERAS: Final = "Exception encountered when calling"
_NODE: Final = re.compile(r"\{\{node ([^{}]+)\}\}")
_DID_NOT_FAIL: Final = "The replay of the step did not fail with this error."


def replay_of_failure(
    trace: StepTrace,
    walk: Walk,
    *,
    error: tf.errors.OpError | None,
    original: tf.errors.OpError,
    outside_step: Collection[Op],
) -> Replay:
    """Return what was non-finite before the operation that ended a step with an error.

    Args:
        trace: the trace of the step, which has run.
        walk: a walk through it.
        error: the error of the replay; ``None`` if the replay came to its end.
        original: the error of the step.
        outside_step: see :class:`~tb_nanwatch.watch.replay.phases.Phases`.
    """
    op = None if error is None else failed_op(error, trace.flow.graphs)
    if op is None:
        return Replay("finite", (_DID_NOT_FAIL,))
    sinks = _sinks_before(op, walk)
    before = [place.node.number for sink in sinks for place in trace.flow.places(sink) if place.node]
    updates = trace.updates
    number = sum(numbers.stop <= max(before, default=0) for numbers in updates[-1].earlier)
    phases = Phases(Names(trace), updates[number], is_loss_bad=True, outside_step=outside_step)
    chains = chains_of(walk, [([("forward", sinks)], Origins(phases, walk))])
    note = f"The error came from {op.type}{place_of(op, trace.flow)}."
    # If several operations fail together, another one may come first in the replay.
    is_same = op is failed_op(original, trace.flow.graphs)
    return Replay("found" if chains else "finite", (note,) if is_same else (), chains)


def _sinks_before(op: Op, walk: Walk) -> list[Tensor]:
    """Return the floating tensors before an operation; those behind an index only if NaN: a mask may hold Inf."""
    return [tensor for tensor, is_direct in walk.flow.floating_behind(op) if is_direct or walk.has_nan(tensor)]


def cause_of(error: tf.errors.OpError) -> str:
    """Return the line of an error's message that says what went wrong. Most of its lines say where."""
    lines = [line for line in (_NOISE.sub("", line).strip() for line in str(error.message).splitlines()) if line]
    lines = [line for line in lines if not line.startswith(_KERAS)]
    raised = next((line for line in lines if _RAISED.match(line)), None)
    # TensorFlow writes the node after the line that matters.
    before_node = next((before for before, line in itertools.pairwise(lines) if line.startswith("[[")), None)
    return raised or before_node or (lines[0] if lines else type(error).__name__)


def failed_op(error: tf.errors.OpError, graphs: Iterable[Any]) -> Op | None:
    """Return the operation that ended a run with an error; ``None`` if the message fits none or several."""
    for name in _NODE.findall(str(error.message)):
        found = [op for graph in graphs for op in _named(graph, name)]
        if len(found) == 1:
            return found[0]
    return None


def account_of(error: tf.errors.OpError, flow: Flow) -> str:
    """Return why a replay could not run to its end, as the rest of a sentence."""
    op, reason = failed_op(error, flow.graphs), cause_of(error)
    # What a Python function of the program raised says enough.
    if op is None or op.type.endswith("PyFunc"):
        return reason
    unchecked = " (XLA and GPUs do not check this)" if op.type in _INDEXED else ""
    return f"{op.type}{place_of(op, flow)} ended the replay with an error: {reason.rstrip('.')}{unchecked}"


def place_of(op: Op, flow: Flow) -> str:
    """Return what follows the name of an operation in a sentence to say where it is made; empty if that is not known.

    For an operation of a gradient, this is the line of the forward operation.
    """
    node = flow.node_of(op)
    forward = flow.forward_op(node) if node is not None and node.creation.in_gradient else None
    source = users_line(flow.stack(op if forward is None else forward))
    whose = "" if forward is None else f", in the gradient of {forward.type}"
    return f"{whose} ({source.file}:{source.line})" if source else whose


def _named(graph: Any, name: str) -> list[Op]:
    with contextlib.suppress(KeyError):
        return [graph.get_operation_by_name(name)]
    return []
