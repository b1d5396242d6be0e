"""What the error of an operation says that ended a step or its replay, and which operation it is of."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.replay.flow import Flow
from tb_nanwatch.watch.replay.forward import forward_op
from tb_nanwatch.watch.replay.lines import users_line

Op = Any
_INDEXED: Final = frozenset({"Gather", "GatherV2", "GatherNd", "ResourceGather", "ResourceGatherNd"})
_RAISED: Final = re.compile(r"\w+(Error|Exception): ")
_NOISE: Final = re.compile(r"\x1b\[[\d;]*m|\{\{function_node [^{}]*\}\}|\[Op:\w*\] name:.*$")
_KERAS: Final = "Exception encountered when calling"
_NODE: Final = re.compile(r"\{\{node ([^{}]+)\}\}")


def cause_of(error: tf.errors.OpError) -> str:
    """Return the line that says what went wrong, of a message in which most lines say where."""
    lines = [line for line in (_NOISE.sub("", line).strip() for line in str(error.message).splitlines()) if line]
    lines = [line for line in lines if not line.startswith(_KERAS)]
    raised = next((line for line in lines if _RAISED.match(line)), None)
    # TensorFlow puts the node after the line that matters.
    before_node = next((before for before, line in itertools.pairwise(lines) if line.startswith("[[")), None)
    return raised or before_node or (lines[0] if lines else type(error).__name__)


def failed_op(error: tf.errors.OpError, graphs: Iterable[Any]) -> Op | None:
    """Return the operation that ended a run with an error; ``None`` where the message does not tell one from others."""
    for name in _NODE.findall(str(error.message)):
        found = [op for graph in graphs for op in _named(graph, name)]
        if len(found) == 1:
            return found[0]
    return None


def account_of(op: Op, reason: str, place: str) -> str:
    """Return what is said of an operation that ended a replay with an error: the rest of a sentence on the replay.

    Args:
        op: that failed.
        reason: from its error.
        place: see :func:`place_of`.
    """
    unchecked = " (XLA and GPUs do not check this)" if op.type in _INDEXED else ""
    return f"{op.type}{place} ended it with an error: {reason.rstrip('.')}{unchecked}"


def place_of(op: Op, flow: Flow) -> str:
    """Return what follows the name of an operation to say where it is made; nothing where that is not known.

    An operation of a gradient stands where the forward operation does.
    """
    node = flow.node_of(op)
    forward = forward_op(flow, node) if node is not None and node.creation.in_gradient else None
    source = users_line(flow.stack(op if forward is None else forward))
    whose = "" if forward is None else f", in the gradient of {forward.type}"
    return f"{whose} ({source.file}:{source.line})" if source else whose


def _named(graph: Any, name: str) -> list[Op]:
    with contextlib.suppress(KeyError):
        return [graph.get_operation_by_name(name)]
    return []
