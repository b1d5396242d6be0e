"""A replay is made in the thread that trains, and replays in several threads do not meet."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function

from tests.watch.replay.programs import GOOD, log_step


def test_a_replay_in_another_thread_than_the_main_one(tmp_path):
    def train():
        program = log_step(tmp_path)
        program.step(GOOD)
        return program.bad_step()

    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(train).result()
    assert (error.alert.replay.outcome, error.verdict.first.op.type) == ("found", "Log")


def test_two_watches_replay_at_once_and_each_sees_its_own_step(tmp_path):
    call, together = polymorphic_function.Function.__call__, threading.Barrier(2)
    inner = {"Log": tf.function(tf.math.log), "Rsqrt": tf.function(tf.math.rsqrt)}

    def train(kind):
        program = log_step(tmp_path / kind, lambda x: inner[kind](x) + tf.exp(x))
        program.step(GOOD)
        errors = []
        for _ in range(4):
            together.wait()
            errors.append(program.bad_step())
        return [error.verdict.first.op.type for error in errors]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(train, inner)) == [["Log"] * 4, ["Rsqrt"] * 4]
    assert polymorphic_function.Function.__call__ is call
