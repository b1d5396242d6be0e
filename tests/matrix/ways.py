"""Every supported way to train: the code that a user writes, and a program that trains this way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NanWatchHook, Watch
from tests.matrix.network import BAD_STEP, Batch, Network

Policy = str
State = list[np.ndarray]
Built = Literal["all", "layers", "nothing"]
ALL: Final = ("raise", "skip", "record")
SCALE_GROWTH: Final = {"dynamic_growth_steps": BAD_STEP + 3}
"""The loss scale is 1 up to the bad step, and grows soon after it."""


@dataclass(frozen=True)
class Setup:
    """The options of a training.

    Attributes:
        logdir: directory of the watch; ``None`` to train unwatched.
        policy: policy of the watch.
        built: the parts that are built before the first step: ``"all"``, the ``"layers"`` or ``"nothing"``. The first
            step builds the rest.
    """

    logdir: Path | None
    policy: Policy = "raise"
    built: Built = "all"


Train = Callable[[Setup, Sequence[Batch]], State]


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        name: its name in the documentation.
        code: the code that a user writes.
        program: trains on batches, and returns the final state.
        policies: the policies that work with it.
        replays: whether the watch replays a bad step, and so names the operation.
        is_whole: whether a step is a single call, so that a skip undoes all of the step.
        is_exact: whether a watched training equals an unwatched training bit for bit. This holds while TensorFlow's
            optimiser does not regroup arithmetic.
        builds: whether the first step may build the layers and the optimizers.
    """

    name: str
    code: str
    program: Train
    policies: tuple[Policy, ...] = ALL
    replays: bool = True
    is_whole: bool = True
    is_exact: bool = True
    builds: bool = True

    @property
    def naming(self) -> tuple[Policy, ...]:
        """The policies under which a replay names the operation; ``"record"`` never replays."""
        return tuple(policy for policy in self.policies if self.replays and policy != "record")

    def train(self, logdir: Path | None, policy: Policy, batches: Sequence[Batch], *, built: Built = "all") -> State:
        """Train on batches, watched if there is a log directory, and return the final state."""
        return self.program(Setup(logdir, policy, built), batches)


def assert_same(way: Way, first: State, second: State) -> None:
    """Check that two trainings end in the same state: bit for bit, or where XLA compiles, up to rounding."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        if way.is_exact:
            assert np.array_equal(a, b)
        else:
            assert np.allclose(a, b, rtol=1e-6, atol=1e-7)


def tensors(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(batch[0]), tf.constant(batch[1])


class Loop:
    """A custom training loop over the network."""

    def __init__(self, setup: Setup, optimizer: Any = None, *, mixed: bool = False) -> None:
        self.net = Network(mixed=mixed, is_built=setup.built != "nothing")
        self.optimizer = optimizer or keras.optimizers.SGD(1e-2, momentum=0.9)
        if setup.built == "all":
            self.optimizer.build(self.net.variables)
        variables = None if setup.built == "nothing" else self.net.variables
        self.watch = None if setup.logdir is None else Watch(setup.logdir, variables, policy=setup.policy)

    def step(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        loss, raw = self.net.gradients(x, y, getattr(self.optimizer, "scale_loss", None))
        self.apply(raw, raw, loss)
        return loss

    def clipped_step(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        loss, raw = self.net.gradients(x, y)
        clipped, _ = tf.clip_by_global_norm(raw, 1.0)
        self.apply(clipped, raw, loss)
        return loss

    def apply(self, clipped: Sequence[tf.Tensor], raw: Sequence[tf.Tensor], loss: tf.Tensor) -> None:
        pairs = zip(clipped, self.net.variables, strict=True)
        if self.watch is None:
            self.optimizer.apply_gradients(pairs)
        else:
            self.watch.apply_gradients(self.optimizer, pairs, raw=raw, loss=loss)

    def compile(self, step: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        make: Callable[..., Any] = tf.function if self.watch is None else self.watch.step
        return make(step, **options)

    def train(self, step: Callable[..., Any], batches: Sequence[Batch], *, calls_after_step: bool = False) -> State:
        for batch in batches:
            step(*tensors(batch))
            if calls_after_step and self.watch is not None:
                self.watch.after_step()
        if self.watch is not None:
            self.watch.close()
        return self.net.state(self.optimizer)


def compiled(**options: Any) -> Train:
    def train(setup: Setup, batches: Sequence[Batch]) -> State:
        loop = Loop(setup)
        return loop.train(loop.compile(loop.clipped_step, **options), batches)

    return train


def above_a_tf_function(setup: Setup, batches: Sequence[Batch]) -> State:
    loop = Loop(setup)
    step = tf.function(loop.step)
    return loop.train(step if loop.watch is None else loop.watch.step(step), batches)


def eager(setup: Setup, batches: Sequence[Batch]) -> State:
    loop = Loop(setup)
    return loop.train(loop.step, batches)


def undecorated(setup: Setup, batches: Sequence[Batch]) -> State:
    loop = Loop(setup)
    return loop.train(tf.function(loop.step), batches, calls_after_step=True)


def half_precision(setup: Setup, batches: Sequence[Batch]) -> State:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), initial_scale=1.0, **SCALE_GROWTH)
    loop = Loop(setup, optimizer, mixed=True)
    return loop.train(loop.compile(loop.step), batches)


def two_optimizers(setup: Setup, batches: Sequence[Batch]) -> State:
    loop = Loop(setup)
    first, second = keras.optimizers.Adam(1e-2), keras.optimizers.SGD(1e-2)

    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        loss, raw = loop.net.gradients(x, y)
        pairs = list(zip(raw, loop.net.variables, strict=True))
        for optimizer, part in ((second, pairs[1:]), (first, pairs[:1])):
            if loop.watch is None:
                optimizer.apply_gradients(part)
            else:
                loop.watch.apply_gradients(optimizer, part, loss=loss)

    if setup.built == "all":
        second.build(loop.net.variables[1:])
        first.build(loop.net.variables[:1])
    loop.train(loop.compile(step), batches)
    return loop.net.state(first, second)


class Accumulating(Loop):
    """A loop that sums the gradients of the two halves of a batch in its own variables."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if setup.built == "nothing":
            self.net.build()
        self.sums = [tf.Variable(tf.zeros_like(variable.value), trainable=False) for variable in self.net.variables]

    def microbatch(self, x: tf.Tensor, y: tf.Tensor) -> None:
        loss, raw = self.net.gradients(x, y)
        if self.watch is not None:
            self.watch.accumulate(zip(raw, self.net.variables, strict=True), loss=loss)
        for total, gradient in zip(self.sums, raw, strict=True):
            total.assign_add(gradient)

    def update(self) -> None:
        pairs = zip([total / 2 for total in self.sums], self.net.variables, strict=True)
        if self.watch is None:
            self.optimizer.apply_gradients(pairs)
        else:
            self.watch.apply_gradients(self.optimizer, pairs)
        for total in self.sums:
            total.assign(tf.zeros_like(total))

    def whole(self, x: tf.Tensor, y: tf.Tensor) -> None:
        for half in (slice(None, 8), slice(8, None)):
            self.microbatch(x[half], y[half])
        self.update()


def accumulated_in_one_step(setup: Setup, batches: Sequence[Batch]) -> State:
    loop = Accumulating(setup)
    return loop.train(loop.compile(loop.whole), batches)


def accumulated_in_calls(setup: Setup, batches: Sequence[Batch]) -> State:
    loop = Accumulating(setup)
    microbatch, update = loop.compile(loop.microbatch), loop.compile(loop.update)

    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        microbatch(x[:8], y[:8])
        microbatch(x[8:], y[8:])
        update()

    return loop.train(step, batches)


class LateModel(keras.Model):
    """The network with its own ``train_step``. Keras cannot build its layers and optimizer before this step."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net, self.own_layers = net, net.layers

    def compile(self, optimizer: Any, loss: str, **options: Any) -> None:
        super().compile(optimizer=None, loss=None, **options)
        self.own_optimizer = optimizer

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        loss, gradients = self.net.gradients(*data, self.own_optimizer.scale_loss)
        self.own_optimizer.apply_gradients(zip(gradients, self.net.variables, strict=True))
        return {"loss": loss}


def fitted(*, mixed: bool = False, accumulation: int | None = None, **compile_options: Any) -> Train:
    def train(setup: Setup, batches: Sequence[Batch]) -> State:
        net = Network(mixed=mixed, is_built=setup.built != "nothing")
        model: Any = keras.Sequential(net.layers) if setup.built == "all" else LateModel(net)
        optimizer: Any = keras.optimizers.SGD(
            1e-2, momentum=0.9, global_clipnorm=1.0, gradient_accumulation_steps=accumulation
        )
        if mixed:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0, **SCALE_GROWTH)
        model.compile(optimizer, "mse", **compile_options)
        x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
        callbacks = [] if setup.logdir is None else [NanWatchCallback(setup.logdir, policy=setup.policy)]
        model.fit(x, y, batch_size=len(batches[0][0]), shuffle=False, verbose=0, callbacks=callbacks)
        return net.state(optimizer)

    return train


class SessionGraph:
    """The network as a TensorFlow 1 graph."""

    def __init__(self, setup: Setup) -> None:
        v1 = tf.compat.v1
        v1.set_random_seed(5)
        self.x, self.y = v1.placeholder(tf.float32, [None, 3]), v1.placeholder(tf.float32, [None, 1])
        with v1.variable_scope("root"):
            hidden = tf.sqrt(v1.get_variable("gain", initializer=tf.ones([3])) * self.x)
        for name, inputs, outputs in (("hidden", 3, 8), ("head", 8, 1)):
            with v1.variable_scope(name):
                start = np.random.default_rng(inputs).normal(size=(inputs, outputs)).astype("float32") / 3
                hidden = hidden @ v1.get_variable("kernel", initializer=start)
                hidden = tf.tanh(hidden) if name == "hidden" else hidden
        loss = tf.reduce_mean(tf.square(hidden - self.y))
        variables = v1.trainable_variables()
        pairs = list(zip(v1.gradients(loss, variables), variables, strict=True))
        self.watch = None if setup.logdir is None else Watch(setup.logdir, policy=setup.policy)
        self.train_op = self.training(v1.train.RMSPropOptimizer(1e-2), pairs, loss)

    def training(self, optimizer: Any, pairs: Sequence[tuple[Any, Any]], loss: Any) -> Any:
        if self.watch is None:
            return optimizer.apply_gradients(pairs)
        return self.watch.apply_gradients(optimizer, pairs, loss=loss)

    def step(self, run: Callable[..., Any], batch: Batch) -> None:
        run(self.train_op, {self.x: batch[0], self.y: batch[1]})


class AccumulatingGraph(SessionGraph):
    """The same graph, where NumPy takes the mean over the two halves of a batch and feeds it back."""

    def training(self, optimizer: Any, pairs: Sequence[tuple[Any, Any]], loss: Any) -> Any:
        self.gradients, variables = zip(*pairs, strict=True)
        self.means = [tf.compat.v1.placeholder(tf.float32, variable.shape) for variable in variables]
        if self.watch is not None:
            self.watch.accumulate(pairs, loss=loss)
        return super().training(optimizer, list(zip(self.means, variables, strict=True)), None)

    def step(self, run: Callable[..., Any], batch: Batch) -> None:
        x, y = batch
        parts = [run(self.gradients, {self.x: x[half], self.y: y[half]}) for half in (slice(None, 8), slice(8, None))]
        means = [np.mean(gradients, axis=0) for gradients in zip(*parts, strict=True)]
        run(self.train_op, dict(zip(self.means, means, strict=True)))


def monitored_session(setup: Setup, batches: Sequence[Batch]) -> State:
    with tf.Graph().as_default():
        graph = SessionGraph(setup)
        hooks = [] if graph.watch is None else [NanWatchHook(graph.watch)]
        variables = tf.compat.v1.global_variables()
        with tf.compat.v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for batch in batches:
                graph.step(session.run, batch)
            return list(session.run(variables))


def plain_session(build: Callable[[Setup], SessionGraph]) -> Train:
    def train(setup: Setup, batches: Sequence[Batch]) -> State:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            graph = build(setup)
            variables = tf.compat.v1.global_variables()
            session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.local_variables_initializer()])
            run = session.run if graph.watch is None else partial(graph.watch.session_run, session)
            for batch in batches:
                graph.step(run, batch)
            if graph.watch is not None:
                graph.watch.close()
            return list(session.run(variables))

    return train


WAYS: Final = (
    Way("custom loop, compiled", "`@watch.step` instead of `@tf.function`", compiled()),
    Way("custom loop, XLA", "`@watch.step(jit_compile=True)`", compiled(jit_compile=True), is_exact=False),
    Way("a step that is a `tf.function` already", "`watch.step(train_step)`", above_a_tf_function),
    Way("custom loop, eager", "`watch.apply_gradients`", eager, policies=("raise", "record"), replays=False),
    Way("a compiled step not decorated", "`watch.after_step()` after each call", undecorated, replays=False),
    Way("several optimizers in a step", "`watch.apply_gradients` for each", two_optimizers),
    Way("half precision, loss scale", "`watch.apply_gradients(LossScaleOptimizer(...), ...)`", half_precision),
    Way("micro-batches in one step", "`watch.accumulate` for each", accumulated_in_one_step),
    Way("micro-batches, a call each", "`watch.accumulate` for each", accumulated_in_calls, is_whole=False),
    Way("`model.fit`", "`NanWatchCallback(log_dir)`", fitted(jit_compile=False)),
    Way("`model.fit`, XLA", "the same", fitted(jit_compile=True), is_exact=False),
    Way("`model.fit`, many steps a call", "the same", fitted(steps_per_execution=4, jit_compile=False)),
    Way("`model.fit`, eager", "the same", fitted(run_eagerly=True)),
    Way("`model.fit`, half precision", "the same", fitted(mixed=True, jit_compile=False)),
    Way("`model.fit`, accumulation", "the same", fitted(accumulation=2, jit_compile=False)),
    Way("TensorFlow 1, MonitoredSession", "`NanWatchHook(watch)`", monitored_session, builds=False),
    Way("TensorFlow 1, Session", "`watch.session_run(session, ...)`", plain_session(SessionGraph), builds=False),
    Way(
        "TensorFlow 1, micro-batches",
        "`watch.accumulate` once, then either",
        plain_session(AccumulatingGraph),
        is_whole=False,
        builds=False,
    ),
)
