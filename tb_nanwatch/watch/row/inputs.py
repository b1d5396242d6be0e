"""What a training step hands over: gradients and variables, and what is known beside them, checked at the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.row.replicas import Replicas
from tb_nanwatch.watch.tf_internals import loss_scale_object


class StepInputs(NamedTuple):
    """What ``apply_gradients`` was given.

    Attributes:
        pairs: gradient after clipping, and variable.
        raw: gradients before clipping, in the same order; ``None`` where nothing clips.
        loss: scalar or one for each sample; ``None`` if not given.
        step: the user's step; ``None`` if steps are counted.
        scale: of the loss, by which the gradients are scaled too, a scalar; ``None`` where there is none.
        is_unscaled: whether the gradients were given without their scale.
        replicas: that the step runs on; ``None`` where there is but one device.
        others: what the replicas of this process after the first were given.
        scalars: of an eager step, those that its update multiplies by, as far as they are known before it.
    """

    pairs: Sequence[tuple[Any, Any]]
    raw: Sequence[Any] | None
    loss: tf.Tensor | None
    step: tf.Tensor | None
    scale: tf.Tensor | None = None
    is_unscaled: bool = False
    replicas: Replicas | None = None
    others: Sequence[StepInputs] = ()
    scalars: Sequence[tf.Tensor] = ()

    @property
    def variables(self) -> list[Any]:
        """The variables of the pairs."""
        return [variable for _, variable in self.pairs]

    @classmethod
    def checked(
        cls,
        pairs: Sequence[tuple[Any, Any]],
        *,
        raw: Sequence[Any] | None,
        loss: Any,
        step: Any,
        scale: tf.Tensor | None = None,
        in_session: bool = False,
        caller: str = "apply_gradients",
    ) -> StepInputs:
        """Check what the user gave to ``caller``.

        Raises:
            SetupError: if it cannot be a step's.
        """
        odd = next((pair for pair in pairs if not _is_pair(pair)), None)
        if odd is not None:
            raise SetupError(
                f"{caller} must be given pairs of gradient and variable, as zip(gradients, variables) makes them;"
                f" got among them a {type(odd).__name__}"
            )
        if raw is not None and len(raw) != len(pairs):
            raise SetupError(f"raw must have one gradient for each pair; got {len(raw)} for {len(pairs)} pairs")
        if all(gradient is None for gradient, _ in pairs):
            why = "does the loss use the variables?" if pairs else "was the zip of them used up before?"
            raise SetupError(f"{caller} must be given at least one gradient; got none: {why}")
        if not in_session and not tf.compat.v1.executing_eagerly_outside_functions():
            raise SetupError("a graph of TensorFlow 1 can be watched by apply_gradients alone; use that")
        clips = raw is not None and any(before is not after for before, (after, _) in zip(raw, pairs, strict=True))
        loss = None if loss is None else floating(tf.convert_to_tensor(loss))
        step = None if step is None else tf.cast(tf.convert_to_tensor(step), tf.int64)
        return cls(pairs, raw if clips else None, loss, step, scale)


def loss_scale_of(optimizer: Any) -> tf.Tensor | None:
    """Return by what an optimizer scales the loss, if it changes that by itself; else ``None``.

    Such an optimizer (``keras.optimizers.LossScaleOptimizer``) leaves an update out whose gradients overflowed, and
    lowers the scale. A factor that stays is no such thing: an overflow of its gradients is one of the training.

    Args:
        optimizer: built.
    """
    scale = getattr(optimizer, "dynamic_scale", None)
    if scale is None or not hasattr(optimizer, "inner_optimizer"):
        return None
    return tf.convert_to_tensor(scale)


def session_loss_scale_of(optimizer: Any) -> tf.Tensor | None:
    """Return by what an optimizer of TensorFlow 1 scales the loss, if it changes that by itself; else ``None``.

    ``tf.compat.v1.mixed_precision.MixedPrecisionLossScaleOptimizer`` gives the gradients without their scale.

    Args:
        optimizer: whose ``compute_gradients`` was called.
    """
    scale = loss_scale_object(optimizer)
    is_dynamic = isinstance(scale, tf.compat.v1.mixed_precision.DynamicLossScale)
    return tf.convert_to_tensor(scale()) if is_dynamic else None


def floating(loss: tf.Tensor) -> tf.Tensor:
    """Return a loss as a floating tensor; raises SetupError if it is no number."""
    if not (loss.dtype.is_floating or loss.dtype.is_integer or loss.dtype.is_bool):
        raise SetupError(f"loss must be a number; got a tensor of {loss.dtype.name}")
    return loss if loss.dtype.is_floating else tf.cast(loss, tf.float32)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and hasattr(pair[1], "assign")
