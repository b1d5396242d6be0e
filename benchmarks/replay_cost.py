"""Measures how long the replay of a bad step takes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

import tb_nanwatch
from benchmarks.networks import alphazero
from demo import exploding_critic as demo

BATCH = 1024
DIVERGES_WITHIN = 1000


@dataclass(frozen=True)
class ReplayCost:
    """Cost of one replay.

    Attributes:
        step: the step that was replayed.
        seconds: from the alert to the answer.
        operation: type of the operation that the replay found.
    """

    step: str
    seconds: float
    operation: str


def replay_costs() -> list[ReplayCost]:
    """Make each network non-finite, and time its replay.

    Raises:
        RuntimeError: if a network stays finite.
    """
    return [
        _cost_of("the demo's critic, batch 64", _explode),
        _cost_of(f"AlphaZero network, batch {BATCH:,}", _overflow),
    ]


def _cost_of(step: str, train: Callable[[str], None]) -> ReplayCost:
    with tempfile.TemporaryDirectory() as logdir:
        try:
            train(logdir)
        except tb_nanwatch.NonFiniteError as error:
            replay, first = None if error.alert is None else error.alert.replay, error.verdict.first
            if replay is not None and first is not None and first.op is not None:
                return ReplayCost(step, replay.seconds, first.op.type)
            raise
    raise RuntimeError(f"{step} must become non-finite to be timed; it stayed finite")


def _explode(logdir: str) -> None:
    keras.utils.set_random_seed(0)
    critic = demo.Critic(activation="relu", init="he")
    batches = demo.draw_batches(demo.collect_transitions(0), seed=0, steps=DIVERGES_WITHIN)
    with tb_nanwatch.Watch(logdir, critic.variables) as watch:
        demo.train(watch, critic, batches, optimizer=demo.OPTIMIZERS["sgd"](2e-4), clip_norm=None)


def _overflow(logdir: str) -> None:
    network = alphazero(batch_size=BATCH)
    boards, *targets = network.batch
    with tb_nanwatch.Watch(logdir, network.variables) as watch:

        @watch.step
        def train_step(*batch: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                loss = network.loss(*batch)
            gradients: Any = tape.gradient(loss, network.variables)
            watch.apply_gradients(network.optimizer, zip(gradients, network.variables, strict=True), loss=loss)

        # A feature far too large, as if it had never been normalised. Its square leaves float32 in the first batch
        # norm, and the replay observes everything after it too.
        train_step(boards * 1e25, *targets)
