"""Several updates of the same variables in one step, as for a critic: one row, and all of them or none."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.errors import SetupError

LOSSES = ((tf.math.log, "Log"), (tf.math.rsqrt, "Rsqrt"), (tf.math.reciprocal, "Reciprocal"))
HEALTHY = [2.0, 3.0, 4.0]
STEPS = 5


class Unrolled:
    """Three updates of one variable in a step, each with its own loss."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch
        self.weight = keras.Variable([1.0, -1.0], name="weight")
        self.seen = tf.Variable(0, trainable=False, name="seen")
        self.optimizer = keras.optimizers.Adam(0.1)

    def step(self, x: tf.Tensor) -> None:
        self.seen.assign_add(1)
        for number, (function, _) in enumerate(LOSSES):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(self.weight.value)) * function(x[number])
            pairs = list(zip(tape.gradient(loss, [self.weight.value]), [self.weight], strict=True))
            if self.watch is None:
                self.optimizer.apply_gradients(pairs)
            else:
                self.watch.apply_gradients(self.optimizer, pairs, loss=loss)

    def state(self) -> list[list[float]]:
        return [np.ravel(variable.numpy()).tolist() for variable in (self.weight, self.seen, *self.optimizer.variables)]


def bad(number: int) -> tf.Tensor:
    return tf.constant([0.0 if place == number else value for place, value in enumerate(HEALTHY)])


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("policy", ["raise", "skip", "record"])
def test_good_updates_equal_those_of_a_bare_step_and_leave_one_row(policy, tmp_path, read):
    bare, net = Unrolled(), Unrolled(Watch(tmp_path, policy=policy))
    bare_step, step = tf.function(bare.step), net.watch.step(net.step)
    for _ in range(STEPS):
        bare_step(tf.constant(HEALTHY))
        step(tf.constant(HEALTHY))
    net.watch.close()
    assert net.state() == bare.state()
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("finite", STEPS)


def decorated(net: Unrolled):
    return net.watch.step(net.step)


def by_xla(net: Unrolled):
    return net.watch.step(net.step, jit_compile=True)


def undecorated(net: Unrolled):
    compiled = tf.function(net.step)

    def step(x: tf.Tensor) -> None:
        compiled(x)
        net.watch.after_step()

    return step


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("way", [decorated, by_xla, undecorated])
def test_a_bad_update_undoes_those_before_it_in_the_step_and_is_named(way, number, tmp_path):
    net = Unrolled(Watch(tmp_path))
    step = way(net)
    step(tf.constant(HEALTHY))
    before = net.state()
    with pytest.raises(NonFiniteError, match=r"The update of step 1 was withheld") as caught:
        step(bad(number))
    assert net.state() == before
    first = caught.value.verdict.first
    assert (first.step, first.phase) == (1, "loss")
    if way is not undecorated:
        assert first.op.type == LOSSES[number][1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_step_with_a_bad_update_is_skipped_whole(number, tmp_path, read):
    net = Unrolled(Watch(tmp_path, policy="skip"))
    step = net.watch.step(net.step)
    step(tf.constant(HEALTHY))
    before = net.state()
    step(bad(number))
    assert net.state() == before
    step(tf.constant(HEALTHY))
    net.watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.first.step, verdict.skipped_steps, verdict.steps_seen) == (1, 1, 3)


def test_each_round_of_a_tensorflow_loop_is_a_step_with_all_its_updates(tmp_path, read):
    net = Unrolled(Watch(tmp_path))

    @net.watch.step
    def steps(x):
        for _ in tf.range(4):
            net.step(x)

    steps(tf.constant(HEALTHY))
    net.watch.close()
    assert int(net.optimizer.iterations) == 12
    assert read(tmp_path).verdict.steps_seen == 4


def test_an_update_before_a_loop_of_updates_of_the_same_variable_is_refused(tmp_path):
    net = Unrolled(Watch(tmp_path))

    @net.watch.step
    def steps(x):
        net.step(x)
        for _ in tf.range(4):
            net.step(x)

    with pytest.raises(SetupError, match="must be in one function, or all in one loop of TensorFlow's"):
        steps(tf.constant(HEALTHY))
