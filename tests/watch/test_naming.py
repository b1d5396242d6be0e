"""Every variable has a unique name in the header."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.schema.records import Header
from tb_nanwatch.watch.naming import describe


def names_of(*names):
    described = describe([tf.Variable(0.0, name=name) for name in names], [None] * len(names))
    assert Header(0, described).variables == described
    return [variable.name for variable in described]


def test_a_name_with_a_number_stays_with_the_variable_that_has_it():
    assert names_of("w", "w", "w#2") == ["w", "w#3", "w#2"]
    assert names_of("w#2", "w", "w", "w#2", "w") == ["w#2", "w", "w#3", "w#2#2", "w#4"]


@given(names=st.lists(st.sampled_from(["w", "w#2", "w#2#2", "w#3", "v"]), max_size=12))
def test_names_are_unique_and_the_first_of_each_keeps_its_own(names):
    found = names_of(*names)
    assert len(set(found)) == len(names)
    assert [found[names.index(name)] for name in names] == names


def test_layers_with_the_same_name_in_unknown_models_get_numbers():
    def layer(units, *, use_bias=True):
        dense = keras.layers.Dense(units, use_bias=use_bias, name="dense")
        dense.build((None, 2))
        return dense.trainable_variables

    variables = [*layer(1, use_bias=False), *layer(2), *layer(3)]
    assert [(one.name, one.layer) for one in describe(variables, [None] * len(variables))] == [
        ("dense/kernel", "dense"),
        ("dense#2/kernel", "dense#2"),
        ("dense#2/bias", "dense#2"),
        ("dense#3/kernel", "dense#3"),
        ("dense#3/bias", "dense#3"),
    ]


@pytest.mark.parametrize(("shape", "expected"), [(None, (-1,)), ([None, 2], (-1, 2)), ([1, 2], (1, 2))])
def test_an_unknown_dimension_is_minus_one(shape, expected):
    variable = tf.Variable([[1.0, 2.0]], shape=tf.TensorShape(shape))
    assert describe([variable], [None])[0].shape == expected
