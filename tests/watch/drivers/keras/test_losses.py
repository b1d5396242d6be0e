"""The loss of an update is the loss that the tape differentiated for its gradients."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch.watch.drivers.keras.losses import NotedLosses


def made():
    return keras.Variable([1.0, 2.0], name="a"), keras.Variable([3.0], name="b"), NotedLosses()


def test_each_of_two_optimizers_has_the_loss_of_its_own_variables_in_any_order():
    a, b, losses = made()
    with losses.listening():
        with tf.GradientTape(persistent=True) as tape:
            first, second = tf.reduce_sum(a.value) * 2, tf.reduce_sum(b.value) * 5
        tape.gradient(first, [a])
        tape.gradient(second, [b])
        assert [float(losses.take([a])), float(losses.take([b]))] == [6.0, 15.0]
        assert losses.take([a]) is None


def test_a_scaled_loss_is_recorded_without_the_scale():
    a, _, losses = made()
    with losses.listening():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(a.value)
            scaled = loss * 1024
            losses.note_scaled(loss, scaled)
        tape.gradient(scaled, [a])
        assert losses.take([a]) is loss


def test_a_gradient_of_an_input_gives_no_loss_and_several_losses_are_their_sum():
    a, _, losses = made()
    x = tf.constant([2.0])
    with losses.listening():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            parts = [tf.reduce_sum(a.value) * x[0], tf.reduce_sum(a.value)]
        tape.gradient(parts, [a])
        tape.gradient(parts[0], [x])
        assert float(losses.take([a])) == 9.0


def test_a_loss_of_another_function_is_not_used():
    a, _, losses = made()

    @tf.function
    def inner():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(a.value)
        return tape.gradient(loss, [a])

    @tf.function
    def outer():
        with losses.listening():
            inner()
            assert losses.take([a]) is None

    outer()


def test_no_gradient_is_noted_outside_of_a_step():
    a, _, losses = made()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(a.value)
    with losses.listening():
        pass
    original = tf.GradientTape.gradient
    tape.gradient(loss, [a])
    assert losses.take([a]) is None
    assert not losses.is_listening
    assert original.__module__.startswith("tensorflow")
