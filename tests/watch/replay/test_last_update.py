"""A second pass through an update that is over: a slot that the update made bad, and a slot that was bad before."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch

BAD = 3


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each element, and one rate is NaN from step 3 on."""

    def __call__(self, step):
        return 0.1 * (1.0 - tf.cast(step, tf.float32) / tf.constant([2.5, 50.0])) ** 0.9  # the line to be named


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(Rates(), momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(Rates(), momentum=0.9, nesterov=True),
    "average": lambda: keras.optimizers.SGD(Rates(), momentum=0.9, use_ema=True),
    "decay": lambda: keras.optimizers.SGD(Rates(), momentum=0.9, weight_decay=0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(Rates(), momentum=0.9),
    "amsgrad": lambda: keras.optimizers.Adam(Rates(), amsgrad=True),
    "adadelta": lambda: keras.optimizers.Adadelta(Rates()),
}


def trained(logdir, optimizer, *, before=lambda step: None, steps=6):
    """The error that training a line ends with."""
    weight, watch = tf.Variable([1.0, 2.0], name="line/weight"), Watch(logdir)
    optimizer.build([weight])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(weight * x))
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    def train():
        for step in range(steps):
            before(step)
            train_step(tf.constant([0.1, 0.1]))

    with pytest.raises(NonFiniteError) as caught:
        train()
    return caught.value


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_slot_that_the_update_made_bad_is_no_origin(tmp_path, kind):
    first = trained(tmp_path, OPTIMIZERS[kind]()).verdict.first
    assert (first.step, first.phase, first.op.type) == (BAD, "update", "Pow")
    assert first.source.text.endswith("# the line to be named")


def test_a_slot_that_came_bad_from_a_checkpoint_is_named(tmp_path):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, name="descent")

    def damage(step):
        if step == 0:
            optimizer.momentums[0].assign([np.nan, 0.0])

    first = trained(tmp_path, optimizer, before=damage).verdict.first
    assert (first.step, first.phase, first.op) == (0, "state", None)
    assert first.variable.endswith("momentum")


def test_a_slot_that_turned_bad_between_two_steps_is_not_named(tmp_path):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)

    def damage(step):
        if step == BAD:
            optimizer.momentums[0].assign([np.nan, 0.0])

    first = trained(tmp_path, optimizer, before=damage).verdict.first
    assert (first.step, first.phase, first.op, first.variable) == (BAD, "update", None, "line/weight")
