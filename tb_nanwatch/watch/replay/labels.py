"""Labels out of their range: XLA and GPUs make NaN of them, where a CPU ends the step with an error.

A replay runs outside of XLA, and so would meet an error that the step did not meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from tb_nanwatch.watch.tf_internals import set_input

Tensor = Any
TAKES_LABELS: Final = "SparseSoftmaxCrossEntropyWithLogits"


def let_labels_pass(op: Any, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Make a cross-entropy give NaN for a label out of its range, as it does under XLA and on a GPU.

    Args:
        op: of type ``SparseSoftmaxCrossEntropyWithLogits``, just created.
        outputs: of it: a loss for each sample, ``[B]``, and the gradient of the logits, ``[B, C]``.

    Returns:
        What takes the place of the outputs. The first input of what makes each of them is the output itself.
    """
    logits, labels = op.inputs
    is_outside = (labels < 0) | (labels >= tf.shape(logits, labels.dtype)[-1])
    set_input(op, 1, tf.where(is_outside, tf.zeros_like(labels), labels))
    loss, slope = outputs
    nan = tf.constant(float("nan"), loss.dtype)
    extra = tf.where(is_outside, nan, tf.zeros_like(nan))
    return [tf.raw_ops.AddV2(x=loss, y=extra), tf.raw_ops.AddV2(x=slope, y=extra[:, None])]
