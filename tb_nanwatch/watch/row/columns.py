"""The watched variables, one for each column of a log: their order, names, owners and values."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Variable
from tb_nanwatch.watch.graphs import Graph
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.owners import Owners, owners_of
from tb_nanwatch.watch.row.cells import Layout, StepTensors
from tb_nanwatch.watch.row.infinities import InitialInfinities, KnownInfinities, Mask, note_of
from tb_nanwatch.watch.row.inputs import StepInputs
from tb_nanwatch.watch.row.measure import InitiallyInfinite, SampledTensor
from tb_nanwatch.watch.row.replicas import of_each_replica
from tb_nanwatch.watch.row.scalars import UpdateScalars
from tb_nanwatch.watch.row.tensors import written_statistics
from tb_nanwatch.watch.variables import backward_order, handle_of, key_of

if TYPE_CHECKING:
    from tb_nanwatch.watch.guard.state import KeptVariable


class Columns:
    """The watched variables of a watch, in column order."""

    def __init__(self, variables: Iterable[Any], *, warn: Callable[[str], None]) -> None:
        """Begin with the variables that the user lists.

        Args:
            variables: in the order in which they are shown; may be empty.
            warn: warns the user, once for each text.
        """
        self._variables, self._warn = list(variables), warn
        self._is_listed = bool(self._variables)
        self._infinities = InitialInfinities()
        self._model: Any = None
        self._owners = Owners()

    @property
    def variables(self) -> Sequence[Any]:
        """The variables, in column order."""
        return self._variables

    @property
    def owners(self) -> Owners:
        """The owners of layers and variables in the user's models; none before the first step."""
        return self._owners

    @property
    def last_values(self) -> Sequence[Any]:
        """One object for each variable, whose ``numpy()`` gives its value without its initial infinities."""
        return [self._infinities.checked(variable) for variable in self._variables]

    def unknown(self, variables: Sequence[Any]) -> list[Any]:
        """Return those variables that have no column."""
        known = {id(variable) for variable in self._variables}
        return [variable for variable in variables if id(variable) not in known]

    def add(self, variables: Sequence[Any]) -> None:
        """Give variables their columns, if they have none."""
        self._variables += self.unknown(variables)

    def replace(self, variables: Sequence[Any]) -> None:
        """Watch these variables and no others."""
        self._variables = list(variables)

    def know_model(self, model: Any) -> None:
        """Name layers and variables by their place in a model of Keras."""
        self._model, self._owners = model, owners_of((), model)

    def name_of_layer(self, layer: Any) -> str:
        """Return the name of a Keras layer, different from the names of all other layers of the model."""
        return self._owners.layer(layer) or str(layer.path or layer.name)

    def complete(self, inputs: StepInputs, graph: Graph | None) -> tuple[Variable, ...]:
        """Add the variables of the first step, and return the header's entries for all.

        Args:
            inputs: of the step.
            graph: that it is traced into; ``None`` for an eager step.
        """
        unknown = self.unknown(inputs.variables)
        if self._is_listed and unknown:
            names = ", ".join(variable.name for variable in describe(unknown, [None] * len(unknown), self._owners))
            warnings.warn(f"tb_nanwatch watches variables that are not among those it was given: {names}", stacklevel=2)
        self._variables += unknown
        self._owners = owners_of(self._variables, self._model)
        described = describe(self._variables, backward_order(graph, self._variables), self._owners)
        self.note_infinities(described, [self._infinities.mask_of(handle_of(one)) for one in self._variables])
        return described

    def described(self) -> tuple[Variable, ...]:
        """Return the header's entries without the variables' places in the backward pass."""
        return describe(self._variables, [None] * len(self._variables), self._owners)

    def note_infinities(self, described: Sequence[Variable], masks: Iterable[Mask | None]) -> None:
        """Warn of trained variables that held infinities before training.

        Args:
            described: the header's entries for the variables.
            masks: which elements of each were infinite; ``None`` where none was.
        """
        for variable, mask in zip(described, masks, strict=True):
            if mask is not None:
                self._warn(note_of(mask, variable.name))

    def warn_of_late(self, inputs: StepInputs, *, remedy: str) -> None:
        """Warn of variables of a step that came after the first step.

        Args:
            inputs: of the step.
            remedy: what the user can do about them.
        """
        unknown = {id(variable) for variable in self.unknown(inputs.variables)}
        late = [variable for gradient, variable in inputs.pairs if gradient is not None and id(variable) in unknown]
        if late:
            these, they = ("variable", "it") if len(late) == 1 else ("variables", "they")
            names = ", ".join(repr(variable.name) for variable in describe(late, [None] * len(late)))
            self._warn(f"does not watch {these} {names}: {they} came after the first step; {remedy}")

    def values_at_start(self, kept: Sequence[KeptVariable]) -> list[tf.Tensor | InitiallyInfinite]:
        """Return the variables' values as the step began; see the function of this name."""
        return values_at_start(self._variables, kept, self._infinities)

    def written_statistics(
        self, inputs: StepInputs, graph: Graph | None, described: Sequence[Variable]
    ) -> list[dict[str, tf.Tensor]]:
        """Return what a step writes to statistics of layers, for each replica by name of the variable.

        Args:
            inputs: of the step.
            graph: that it is traced into; ``None`` for an eager step.
            described: the header's entries for the variables.
        """
        results = [tensor for given in (inputs, *inputs.others) for tensor in given.results]
        found = written_statistics(
            graph, self._variables, described, results=results, owners=self._owners, infinities=self._infinities
        )
        return [found] if inputs.replicas is None else of_each_replica(found, len(inputs.replicas.devices))


def values_at_start(
    variables: Sequence[Any], kept: Sequence[KeptVariable], infinities: KnownInfinities
) -> list[tf.Tensor | InitiallyInfinite]:
    """Return the variables' values as the step began, to be measured without their initial infinities.

    Args:
        variables: in column order.
        kept: variables that the forward pass assigns, with their values from before.
        infinities: that variables held before training.
    """
    before = {key_of(variable.handle): variable.value for variable in kept}
    values = []
    for variable in variables:
        handle = handle_of(variable)
        value = before.get(key_of(handle)) if before else None
        values.append(infinities.excuse(tf.convert_to_tensor(variable) if value is None else value, handle))
    return values


def tensors_of_step(
    inputs: StepInputs,
    layout: Layout,
    variables: Sequence[Any],
    *,
    weights: Sequence[tf.Tensor | InitiallyInfinite | None],
    watched: Sequence[tf.Tensor | SampledTensor | None],
    state: Sequence[tf.Tensor | InitiallyInfinite | None],
    microbatches: tf.Tensor | None,
    scalars: UpdateScalars,
    key: Callable[[Any], Any] = id,
    is_more: bool = False,
) -> StepTensors:
    """Return the tensors that fill the cells of a row.

    Args:
        inputs: of the step.
        layout: of the row.
        variables: in column order.
        weights: their values as the step began.
        watched: watched tensors, in the order of the layout.
        state: what the forward pass writes to layers' statistics, in the order of the layout.
        microbatches: the cells of the step's micro-batches, if it has any.
        scalars: of the update.
        key: see :meth:`~tb_nanwatch.watch.row.inputs.StepInputs.in_columns`.
        is_more: whether an optimizer comes before this one in the step. The losses of several add up.

    Raises:
        SetupError: if the layout has a loss and the first optimizer of the step gives none.
    """
    if layout.loss and inputs.loss is None and not is_more:
        raise SetupError("loss must be given to every apply_gradients of a watch, or to none; this has none")
    raw, clipped = inputs.in_columns(variables, key=key)
    loss = tf.constant(0.0) if layout.loss and inputs.loss is None else inputs.loss
    scale = tf.constant(1.0) if layout.scale and inputs.scale is None else inputs.scale
    return StepTensors(
        raw=raw,
        clipped=None if layout.clip == "none" else clipped,
        weights=weights,
        watched=watched,
        loss=loss if layout.loss else None,
        state=state,
        scale=scale if layout.scale else None,
        is_unscaled=inputs.is_unscaled,
        microbatches=microbatches,
        scalars=scalars if layout.scalars else None,
    )
