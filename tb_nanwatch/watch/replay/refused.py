"""Operations that refuse an index outside of its range: what a replay makes of them, and what their errors say.

XLA and GPUs let such an index pass where a CPU ends the step with an error, so that a replay outside of XLA may meet an
error that the step did not meet.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.schema.records import Source

Op = Any
Tensor = Any
TAKES_LABELS: Final = "SparseSoftmaxCrossEntropyWithLogits"
_INDEXED: Final = frozenset({"Gather", "GatherV2", "GatherNd", "ResourceGather", "ResourceGatherNd"})
_NODE: Final = re.compile(r"\{\{node ([^{}]+)\}\}")


def let_labels_pass(op: Op, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Make a cross-entropy give NaN for a label out of its range, as it does under XLA and on a GPU.

    Args:
        op: of type ``SparseSoftmaxCrossEntropyWithLogits``, just created.
        outputs: of it: a loss for each sample, ``[B]``, and the gradient of the logits, ``[B, C]``.

    Returns:
        What takes the place of the outputs. The first input of what makes each of them is the output itself.
    """
    logits, labels = op.inputs
    is_outside = (labels < 0) | (labels >= tf.shape(logits, labels.dtype)[-1])
    op._update_input(1, tf.where(is_outside, tf.zeros_like(labels), labels))
    loss, slope = outputs
    nan = tf.constant(float("nan"), loss.dtype)
    extra = tf.where(is_outside, nan, tf.zeros_like(nan))
    return [tf.raw_ops.AddV2(x=loss, y=extra), tf.raw_ops.AddV2(x=slope, y=extra[:, None])]


def failed_op(error: tf.errors.OpError, graphs: Iterable[Any]) -> Op | None:
    """Return the operation that ended a run with an error; ``None`` where the message does not tell one from others."""
    for name in _NODE.findall(str(error.message)):
        found = [op for graph in graphs for op in _named(graph, name)]
        if len(found) == 1:
            return found[0]
    return None


def account_of(op: Op, reason: str, source: Source | None) -> str:
    """Return what is said of an operation that ended a replay with an error: the rest of a sentence on the replay.

    Args:
        op: that failed.
        reason: from its error.
        source: the user's line that made it.
    """
    where = f" ({source.file}:{source.line})" if source else ""
    unchecked = " (XLA and GPUs do not check this)" if op.type in _INDEXED else ""
    return f"{op.type}{where} ended it with an error: {reason.rstrip('.')}{unchecked}"


def _named(graph: Any, name: str) -> list[Op]:
    with contextlib.suppress(KeyError):
        return [graph.get_operation_by_name(name)]
    return []
