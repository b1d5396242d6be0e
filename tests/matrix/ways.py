"""Every way to train that is supported: what one writes, and a run of it, watched or bare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NanWatchHook, Watch
from tests.matrix.network import Batch, Network

Policy = str
State = list[np.ndarray]
Train = Callable[[Path | None, Policy, Sequence[Batch]], State]
ALL: Final = ("raise", "skip", "record")


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        name: what people call it.
        code: what one writes.
        train: runs it on batches, and returns all that it leaves; watched if it is given a directory.
        policies: that work.
        replays: whether a bad step is run again, so that the operation is named.
        is_whole: whether a step is one call, so that a skip leaves no trace of any of it.
        exact: whether a watched run equals a bare one bit for bit, TensorFlow's optimiser kept from regrouping.
    """

    name: str
    code: str
    train: Train
    policies: tuple[Policy, ...] = ALL
    replays: bool = True
    is_whole: bool = True
    exact: bool = True


def tensors(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(batch[0]), tf.constant(batch[1])


class Loop:
    """A custom training loop over the network."""

    def __init__(self, logdir: Path | None, policy: Policy, optimizer: Any = None, *, mixed: bool = False) -> None:
        self.net = Network(mixed=mixed)
        self.optimizer = optimizer or keras.optimizers.SGD(1e-2, momentum=0.9)
        self.optimizer.build(self.net.variables)
        self.watch = None if logdir is None else Watch(logdir, self.net.variables, policy=policy)

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

    def over(self, step: Callable[..., Any], batches: Sequence[Batch], *, after: bool = False) -> State:
        for batch in batches:
            step(*tensors(batch))
            if after and self.watch is not None:
                self.watch.after_step()
        if self.watch is not None:
            self.watch.close()
        return self.net.state(self.optimizer)


def compiled(**options: Any) -> Train:
    def train(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
        loop = Loop(logdir, policy)
        bare = tf.function(loop.clipped_step, **options)
        step = bare if loop.watch is None else loop.watch.step(loop.clipped_step, **options)
        return loop.over(step, batches)

    return train


def above_a_tf_function(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    loop = Loop(logdir, policy)
    bare = tf.function(loop.step)
    return loop.over(bare if loop.watch is None else loop.watch.step(bare), batches)


def eager(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    loop = Loop(logdir, policy)
    return loop.over(loop.step, batches)


def undecorated(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    loop = Loop(logdir, policy)
    return loop.over(tf.function(loop.step), batches, after=True)


def half_precision(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), initial_scale=1.0)
    loop = Loop(logdir, policy, optimizer, mixed=True)
    return loop.over(tf.function(loop.step) if loop.watch is None else loop.watch.step(loop.step), batches)


def two_optimizers(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    loop = Loop(logdir, policy)
    first, second = keras.optimizers.Adam(1e-2), keras.optimizers.SGD(1e-2)

    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        loss, raw = loop.net.gradients(x, y)
        pairs = list(zip(raw, loop.net.variables, strict=True))
        for optimizer, some in ((second, pairs[1:]), (first, pairs[:1])):
            if loop.watch is None:
                optimizer.apply_gradients(some)
            else:
                loop.watch.apply_gradients(optimizer, some, loss=loss)

    for optimizer, some in ((second, loop.net.variables[1:]), (first, loop.net.variables[:1])):
        optimizer.build(some)
    loop.over(tf.function(step) if loop.watch is None else loop.watch.step(step), batches)
    return loop.net.state(first, second)


class Accumulating(Loop):
    """A loop that adds up the gradients of two halves of a batch in variables of its own."""

    def __init__(self, logdir: Path | None, policy: Policy) -> None:
        super().__init__(logdir, policy)
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


def accumulated_in_one_step(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    loop = Accumulating(logdir, policy)
    return loop.over(tf.function(loop.whole) if loop.watch is None else loop.watch.step(loop.whole), batches)


def accumulated_in_calls(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    loop = Accumulating(logdir, policy)
    make: Callable[..., Any] = tf.function if loop.watch is None else loop.watch.step
    microbatch, update = make(loop.microbatch), make(loop.update)

    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        microbatch(x[:8], y[:8])
        microbatch(x[8:], y[8:])
        update()

    return loop.over(step, batches)


def fitted(*, mixed: bool = False, accumulation: int | None = None, **compile_options: Any) -> Train:
    def train(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
        net = Network(mixed=mixed)
        model = keras.Sequential(net.layers)
        optimizer: Any = keras.optimizers.SGD(
            1e-2, momentum=0.9, global_clipnorm=1.0, gradient_accumulation_steps=accumulation
        )
        if mixed:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
        model.compile(optimizer, "mse", **compile_options)
        x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
        callbacks = [] if logdir is None else [NanWatchCallback(logdir, policy=policy)]
        model.fit(x, y, batch_size=len(batches[0][0]), shuffle=False, verbose=0, callbacks=callbacks)
        return net.state(optimizer)

    return train


class SessionGraph:
    """The network as a graph of TensorFlow 1."""

    def __init__(self, logdir: Path | None, policy: Policy) -> None:
        v1 = tf.compat.v1
        v1.set_random_seed(5)
        self.x, self.y = v1.placeholder(tf.float32, [None, 3]), v1.placeholder(tf.float32, [None, 1])
        with v1.variable_scope("root"):
            hidden = tf.sqrt(v1.get_variable("gain", initializer=tf.ones([3])) * self.x)
        for name, width, wide in (("hidden", 3, 8), ("head", 8, 1)):
            with v1.variable_scope(name):
                start = np.random.default_rng(width).normal(size=(width, wide)).astype("float32") / 3
                hidden = hidden @ v1.get_variable("kernel", initializer=start)
                hidden = tf.tanh(hidden) if name == "hidden" else hidden
        loss = tf.reduce_mean(tf.square(hidden - self.y))
        variables = v1.trainable_variables()
        pairs = list(zip(v1.gradients(loss, variables), variables, strict=True))
        self.watch = None if logdir is None else Watch(logdir, policy=policy)
        self.train_op = self.training(v1.train.RMSPropOptimizer(1e-2), pairs, loss)

    def training(self, optimizer: Any, pairs: Sequence[tuple[Any, Any]], loss: Any) -> Any:
        if self.watch is None:
            return optimizer.apply_gradients(pairs)
        return self.watch.apply_gradients(optimizer, pairs, loss=loss)

    def step(self, run: Callable[..., Any], batch: Batch) -> None:
        run(self.train_op, {self.x: batch[0], self.y: batch[1]})


class AccumulatingGraph(SessionGraph):
    """The same, with the mean over two halves of a batch taken by NumPy and fed back."""

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


def monitored_session(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
    with tf.Graph().as_default():
        graph = SessionGraph(logdir, policy)
        hooks = [] if graph.watch is None else [NanWatchHook(graph.watch)]
        kept = tf.compat.v1.global_variables()
        with tf.compat.v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            for batch in batches:
                graph.step(session.run, batch)
            return list(session.run(kept))


def plain_session(build: Callable[[Path | None, Policy], SessionGraph]) -> Train:
    def train(logdir: Path | None, policy: Policy, batches: Sequence[Batch]) -> State:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            graph = build(logdir, policy)
            kept = tf.compat.v1.global_variables()
            session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.local_variables_initializer()])
            run = session.run if graph.watch is None else partial(graph.watch.session_run, session)
            for batch in batches:
                graph.step(run, batch)
            if graph.watch is not None:
                graph.watch.close()
            return list(session.run(kept))

    return train


WAYS: Final = (
    Way("custom loop, compiled", "`@watch.step` instead of `@tf.function`", compiled()),
    Way("custom loop, XLA", "`@watch.step(jit_compile=True)`", compiled(jit_compile=True), exact=False),
    Way("a step that is a `tf.function` already", "`watch.step(train_step)`", above_a_tf_function),
    Way("custom loop, eager", "`watch.apply_gradients`", eager, policies=("raise", "record"), replays=False),
    Way("a compiled step not decorated", "`watch.after_step()` after each call", undecorated, replays=False),
    Way("several optimizers in a step", "`watch.apply_gradients` for each", two_optimizers),
    Way("half precision, loss scale", "`watch.apply_gradients(LossScaleOptimizer(...), ...)`", half_precision),
    Way("micro-batches in one step", "`watch.accumulate` for each", accumulated_in_one_step),
    Way("micro-batches, a call each", "`watch.accumulate` for each", accumulated_in_calls, is_whole=False),
    Way("`model.fit`", "`NanWatchCallback(log_dir)`", fitted(jit_compile=False)),
    Way("`model.fit`, XLA", "the same", fitted(jit_compile=True), exact=False),
    Way("`model.fit`, many steps a call", "the same", fitted(steps_per_execution=4, jit_compile=False)),
    Way("`model.fit`, eager", "the same", fitted(run_eagerly=True)),
    Way("`model.fit`, half precision", "the same", fitted(mixed=True, jit_compile=False)),
    Way("`model.fit`, accumulation", "the same", fitted(accumulation=2, jit_compile=False)),
    Way("TensorFlow 1, MonitoredSession", "`NanWatchHook(watch)`", monitored_session),
    Way("TensorFlow 1, Session", "`watch.session_run(session, ...)`", plain_session(SessionGraph)),
    Way(
        "TensorFlow 1, micro-batches",
        "`watch.accumulate` once, then either",
        plain_session(AccumulatingGraph),
        is_whole=False,
    ),
)
