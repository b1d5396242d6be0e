"""The runs of a session: what is fetched beside what the user asks for, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf

from tb_nanwatch.errors import SetupError
from tb_nanwatch.schema.records import Replay
from tb_nanwatch.watch.inputs import StepInputs
from tb_nanwatch.watch.loop import Loop
from tb_nanwatch.watch.plan import Plan
from tb_nanwatch.watch.replay import Evidence, ReplayLimits
from tb_nanwatch.watch.tf1.again import Again
from tb_nanwatch.watch.tf1.feeds import FedCall, fed_gradients
from tb_nanwatch.watch.tf1.graph import ancestors
from tb_nanwatch.watch.tf1.guard import Seen
from tb_nanwatch.watch.tf1.plan import Built, build

_MOST_KNOWN: Final = 256
_NOT_BUILT: Final = "watch.apply_gradients must be called, in the graph of the session, before the first run of it"


class SessionRuns:
    """Watches the runs of one step of a graph of TensorFlow 1."""

    def __init__(self, loop: Loop, plan: Plan) -> None:
        """Prepare; :meth:`apply_gradients` builds the step.

        Args:
            loop: of the watch.
            plan: of the watch.
        """
        self._loop, self._plan = loop, plan
        self._built: Built | None = None
        self._fetched: dict[tuple[int, ...], tuple[bool, Any]] = {}
        self._brought: Mapping[str, int] = {}
        self._session: Any = None

    @property
    def built(self) -> Built:
        """The step.

        Raises:
            SetupError: if it is not built yet.
        """
        if self._built is None:
            raise SetupError(_NOT_BUILT)
        return self._built

    def apply_gradients(
        self, optimizer: Any, inputs: StepInputs, *, step: Any, extra: Mapping[str, Any]
    ) -> tf.Operation:
        """Build the step; see :meth:`tb_nanwatch.watch.watch.Watch.apply_gradients`.

        Args:
            optimizer: the user's.
            inputs: checked.
            step: the variable that counts steps; ``None`` if they are counted.
            extra: passed on to the optimizer.

        Returns:
            The operation that trains.

        Raises:
            SetupError: if the watch has a step already.
        """
        if self._built is not None:
            raise SetupError(
                "a watch must be given one apply_gradients in a graph of TensorFlow 1; make one Watch for each, with a"
                " run_name of its own"
            )
        options = self._loop.options

        def update() -> Any:
            return optimizer.apply_gradients(inputs.pairs, **extra)

        self._built = build(self._plan, inputs, update, policy=options.policy, window=options.window, step=step)
        raw = [gradient for gradient in inputs.raw or [pair[0] for pair in inputs.pairs] if gradient is not None]
        self._brought = fed_gradients(raw, inputs.loss, inputs.variables)
        self._loop.tolerate(self._brought)
        self._loop.last_values, self._loop.run_again = self._last_values, self._run_again
        _list_as_train_op(self._built)
        return self._built.train_op

    def before_run(self, fetches: Any) -> tf.Tensor | None:
        """Return what has to be fetched besides; ``None`` for a run that does not train.

        Args:
            fetches: as the user gave them.
        """
        return self.built.guard.told if self._trains(fetches) else None

    def after_run(self, session: Any, told: Any, feed_dict: Mapping[Any, Any] | None) -> None:
        """Take what a run of the step brought.

        Args:
            session: that ran it.
            told: the value of what :meth:`before_run` gave.
            feed_dict: as the user gave it.

        Raises:
            NonFiniteError: by policy ``"raise"``.
        """
        built, self._session = self.built, session
        seen = Seen.unpacked(told, cells=built.recorder.cells)
        is_finite = built.recorder.add(seen.row, seen.counts, step=seen.step)
        if not is_finite and self._loop.options.policy != "record":
            built.guard.state.put_back_beside(session, seen.kept)
        self._loop.after_step(FedCall.of(built.graph, feed_dict))

    def run(self, session: Any, fetches: Any, **arguments: Any) -> Any:
        """Run a session once, watched; see :meth:`tb_nanwatch.watch.watch.Watch.session_run`.

        Args:
            session: to run.
            fetches: the user's.
            **arguments: of ``session.run``.
        """
        besides = self.before_run(fetches)
        if besides is None:
            return session.run(fetches, **arguments)
        result, told = session.run([fetches, besides], **arguments)
        self.after_run(session, told, arguments.get("feed_dict"))
        return result

    def end(self, session: Any) -> None:
        """Write what is left, and look at the variables once more while there is a session to read them by.

        Raises:
            NonFiniteError: by policy ``"raise"``, if the last update left a variable non-finite.
        """
        self._session = session
        self._loop.close()

    def _trains(self, fetches: Any) -> bool:
        flat = tf.nest.flatten(fetches, expand_composites=True)
        key = tuple(map(id, flat))
        if key not in self._fetched:
            if len(self._fetched) >= _MOST_KNOWN:
                self._fetched.clear()
            # With the fetches themselves, so that no other object takes the place of one.
            self._fetched[key] = self._depends(flat), flat
        return self._fetched[key][0]

    def _depends(self, fetches: Sequence[Any]) -> bool:
        graph = self.built.graph
        elements = [graph.as_graph_element(fetch) for fetch in fetches if fetch is not None]
        return self.built.guard.passed.op in ancestors(elements)

    def _run_again(self, call: FedCall, evidence: Evidence, *, limits: ReplayLimits, **_: Any) -> Replay:
        return Again(self.built, self._session, call, self._brought).replay(evidence, limits=limits)

    def _last_values(self) -> Sequence[Any]:
        return [_Value(variable, self._session) for variable in self._plan.variables]


class _Value:
    """A variable as a session has it."""

    def __init__(self, variable: Any, session: Any) -> None:
        self._variable, self._session = variable, session

    def numpy(self) -> Any:
        """Return the value; nothing where the session is over."""
        try:
            return self._session.run(self._variable)
        except (RuntimeError, AttributeError, tf.errors.OpError):
            return np.zeros(0)


def _list_as_train_op(built: Built) -> None:
    listed = built.graph.get_collection_ref(tf.compat.v1.GraphKeys.TRAIN_OP)
    own = set(built.update_ops)
    listed[:] = [one for one in listed if one not in own] + [built.train_op]
