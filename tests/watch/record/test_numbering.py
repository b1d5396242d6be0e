"""The numbers of rows, from the steps that the user gives."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tb_nanwatch
from tb_nanwatch.cli import main
from tb_nanwatch.watch.record.numbering import Numbering


def numbers_of(numbering: Numbering, *given: int) -> list[int]:
    return numbering.of(np.array(given, np.int64), np.zeros(len(given), bool)).tolist()


def test_steps_that_grow_are_the_numbers() -> None:
    assert numbers_of(Numbering(), 3, 4, 9) == [3, 4, 9]


def test_a_step_that_a_log_cannot_hold_is_counted_on_with_one_warning() -> None:
    numbering = Numbering()
    with pytest.warns(UserWarning, match="must be from 0 to 1125899906842623; it was -5") as caught:
        assert numbers_of(numbering, 7, -5, 2**60) == [7, 8, 9]
        assert numbers_of(numbering, 2**61, 20, 21) == [10, 20, 21]
    assert len(caught) == 1


def test_a_first_step_that_a_log_cannot_hold_is_0() -> None:
    numbering = Numbering()
    with pytest.warns(UserWarning, match="it was 1152921504606846976"):
        assert numbers_of(numbering, 2**60, 2**60 + 1) == [0, 1]


def test_a_time_in_nanoseconds_as_step_leaves_a_log_that_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight, now = tf.Variable([1.0], name="weight"), tf.Variable(0, dtype=tf.int64)
    watch = tb_nanwatch.Watch(tmp_path / "run", [weight], step=now)
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)

    @watch.step
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight**2)
        watch.apply_gradients(optimizer, zip(tape.gradient(loss, [weight]), [weight], strict=True), loss=loss)

    with pytest.warns(UserWarning, match="must be from 0 to"):
        for _ in range(3):
            now.assign(time.time_ns())
            step()
        watch.close()

    assert main([str(tmp_path)]) == 0
    assert "Finite in all 3 steps." in capsys.readouterr().out
