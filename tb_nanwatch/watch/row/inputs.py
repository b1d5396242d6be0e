"""The inputs of a step: gradients, variables and what else ``apply_gradients`` is given, checked where they enter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.row.measure import parts_of
from tb_nanwatch.watch.row.replicas import Replicas


class StepInputs(NamedTuple):
    """The arguments of ``apply_gradients``, and what the driver knows about them.

    Attributes:
        pairs: gradient after clipping, and variable.
        raw: gradients before clipping, in the same order; ``None`` where nothing clips.
        loss: scalar or one value for each sample; ``None`` if not given.
        step: the user's step; ``None`` if the watch counts steps.
        scale: factor of the loss and of the gradients, a scalar; ``None`` where there is none.
        is_unscaled: whether the given gradients are already without the factor.
        replicas: that the step runs on; ``None`` for one device.
        others: inputs of this process's other replicas, after the first.
        scalars: scalars that the update of an eager step multiplies by, as far as they are known before it.
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

    @property
    def gradients(self) -> list[Any]:
        """The gradients of the pairs, after clipping."""
        return [gradient for gradient, _ in self.pairs]

    @property
    def results(self) -> list[tf.Tensor]:
        """The tensors of the loss and of all gradients, before and after clipping."""
        parts = [part for gradient in (*self.gradients, *(self.raw or ())) for part in parts_of(gradient)]
        return parts if self.loss is None else [self.loss, *parts]

    def in_columns(self, variables: Sequence[Any], *, key: Callable[[Any], Any] = id) -> tuple[list[Any], list[Any]]:
        """Return the gradients before and after clipping in the order of some variables.

        Args:
            variables: in column order.
            key: a variable to a value that it shares with no other variable.

        Returns:
            Two lists with an entry for each variable, ``None`` for a variable without a gradient. They are the same
            list where nothing clips.
        """
        keys = [key(variable) for variable in self.variables]
        clipped, raw = dict(zip(keys, self.gradients, strict=True)), dict(zip(keys, self.raw or (), strict=False))
        order = [key(variable) for variable in variables]
        after = [*map(clipped.get, order)]
        return (after if self.raw is None else [*map(raw.get, order)]), after

    @classmethod
    def checked(
        cls,
        pairs: Sequence[tuple[Any, Any]],
        *,
        raw: Sequence[Any] | None,
        loss: Any,
        step: Any,
        caller: str = "apply_gradients",
    ) -> StepInputs:
        """Return the inputs of a step after checking what the user gave to ``caller``.

        Raises:
            SetupError: if these cannot be the inputs of a step.
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
        clips = raw is not None and any(before is not after for before, (after, _) in zip(raw, pairs, strict=True))
        loss = None if loss is None else floating(tf.convert_to_tensor(loss))
        step = None if step is None else tf.cast(tf.convert_to_tensor(step), tf.int64)
        return cls(pairs, raw if clips else None, loss, step)


def floating(loss: tf.Tensor) -> tf.Tensor:
    """Return a loss as a floating tensor.

    Raises:
        SetupError: if it is not a number.
    """
    if not (loss.dtype.is_floating or loss.dtype.is_integer or loss.dtype.is_bool):
        raise SetupError(f"loss must be a number; got a tensor of {loss.dtype.name}")
    return loss if loss.dtype.is_floating else tf.cast(loss, tf.float32)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and hasattr(pair[1], "assign")
