"""Fixtures for every test of ``fit``."""

import pytest
import tensorflow as tf


@pytest.fixture(autouse=True)
def as_written():
    """Keep TensorFlow from regrouping arithmetic by what else reads it."""
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    yield
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
