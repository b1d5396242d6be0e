"""What a real step that goes wrong is advised."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tests.watch.replay.catalogue import CASES
from tests.watch.replay.outcome import outcome
from tests.watch.replay.programs import log_step


def cause_of(tmp_path, through, *args):
    program = log_step(tmp_path, through)
    return program.bad_step(*args).verdict.causes[0]


def test_a_row_of_padding_in_a_pooling_layer_of_keras_is_named(tmp_path):
    (case,) = [case for case in CASES if case.name == "average_of_a_sentence_of_padding"]
    cause = outcome(case, tmp_path).verdict.causes[0]
    assert (cause.id, "In 1 of 3 samples it keeps none" in cause.text) == ("all-padding", True)


def test_the_logarithm_of_a_sigmoid_is_pointed_to_the_one_function(tmp_path):
    cause = cause_of(tmp_path, lambda x: tf.math.log(tf.sigmoid(x)), tf.constant([-200.0, 1.0]))
    assert "tf.math.log_sigmoid" in cause.fix


# NumPy says so already, where TensorFlow makes the constant.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_constant_that_float16_does_not_hold_is_to_be_smaller(tmp_path):
    def masked(x):
        return tf.cast(tf.cast(x, tf.float16) * tf.constant(-1e10, tf.float16), tf.float32)

    assert "tf.float16.min / 2" in cause_of(tmp_path, masked, tf.constant([0.0, 1.0])).fix


def test_an_overflow_before_any_update_is_not_the_learning_rates(tmp_path):
    assert "learning rate" not in cause_of(tmp_path, tf.square, tf.constant([1e20, 1.0])).fix


def test_an_overflow_after_updates_may_be_the_learning_rates(tmp_path):
    program = log_step(tmp_path, tf.square)
    program.step(tf.constant([1.0, 1.0]))
    assert "learning rate" in program.bad_step(tf.constant([1e20, 1.0])).verdict.causes[0].fix


def test_a_power_in_the_backward_pass_is_named_by_the_programs_exponent(tmp_path):
    weight, optimizer = tf.Variable([0.0, 2.0], name="line/weight"), keras.optimizers.SGD(0.0)
    watch = Watch(tmp_path, [weight])

    @watch.step
    def step(x):
        with tf.GradientTape() as tape:
            above = x * weight - 1.0
            loss = tf.reduce_sum(tf.where(above > 0.0, tf.pow(above, 1.2), 0.0))
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    with pytest.raises(NonFiniteError) as caught:
        step(tf.constant([1.0, 1.0]))
    text = caught.value.verdict.causes[0].text
    assert text == "The slope of Pow of a tensor whose minimum is -1 to the power of 1.2: that is no real number."
