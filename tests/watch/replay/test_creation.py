"""What a program calls the values that its line uses."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.watch.replay.creation import Use, name_of_captured, name_of_constant, uses_now

NAN = float("nan")


class Config:
    """Holds a number, and computes another."""

    def __init__(self):
        self.scale = NAN

    @property
    def computed(self):
        raise AssertionError("no code of the user's may run")


def test_names_attributes_and_items_of_the_line_are_found_without_running_code():
    rows, number, config = np.arange(6.0).reshape(3, 2), 1, Config()
    found = {use.text: use.value for use in (rows[number], rows[number : number + 2], config.scale, uses_now())[-1]}
    assert found["rows"] is rows
    assert found["rows[number]"].tolist() == [2.0, 3.0]
    assert found["rows[number:number + 2]"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert found["config.scale"] is config.scale
    assert "config.computed" not in {use.text for use in (lambda: config.computed, uses_now())[-1]}


def test_a_captured_tensor_is_found_by_identity_and_not_by_value():
    tensor, twin = tf.constant([NAN]), tf.constant([NAN])
    uses = [Use("twin", twin), Use("tensor", tensor)]
    assert name_of_captured(uses, tensor) == "tensor"
    assert name_of_captured(uses, tf.constant([NAN])) is None


@pytest.mark.parametrize(
    ("uses", "name"),
    [
        ([Use("a", np.array([1.0, 2.0])), Use("b", np.array([1.0, NAN]))], "b"),
        ([Use("b", [1.0, NAN])], "b"),
        ([Use("b", np.array([[1.0, NAN]]))], None),
        ([Use("b", "text"), Use("c", np.array(["text"])), Use("d", object())], None),
    ],
)
def test_a_constant_is_found_by_its_value(uses, name):
    assert name_of_constant(uses, np.array([1.0, NAN], "float32")) == name


def test_neither_of_two_numbers_that_are_nan_is_named():
    assert name_of_constant([Use("a", NAN), Use("b", NAN)], np.array(NAN)) is None
    assert name_of_constant([Use("a", NAN), Use("b", 1.0)], np.array(NAN)) == "a"
