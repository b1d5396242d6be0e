"""The versions in a header are those of the modules that train, however they were installed."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf

import tb_nanwatch
from tb_nanwatch.watch.record.log import loaded_versions


def test_a_program_whose_packages_have_other_names_is_watched(tmp_path, read, monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    variable = tf.Variable([1.0], name="layer/w")
    watch = tb_nanwatch.Watch(tmp_path, [variable])

    @watch.step
    def train_step(x):
        watch.apply_gradients(tf.compat.v1.train.GradientDescentOptimizer(0.1), [(x * variable, variable)], loss=x)

    train_step(tf.constant(1.0))
    watch.close()
    assert read(tmp_path).session.header.versions["tensorflow"] == tf.__version__


def test_they_are_those_of_the_modules(monkeypatch):
    monkeypatch.delitem(sys.modules, "tf_keras", raising=False)
    assert loaded_versions() == {
        "python": platform.python_version(),
        "tb_nanwatch": tb_nanwatch.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


@pytest.mark.parametrize("stated", [None, 3])
def test_a_module_that_states_no_version_is_left_out(monkeypatch, stated):
    module = ModuleType("keras")
    module.__version__ = stated
    monkeypatch.setitem(sys.modules, "keras", module)
    assert "keras" not in loaded_versions()
