"""A log holds the sessions of a watch, and its headers the versions of the modules that train."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import sys
from types import ModuleType

import keras
import numpy as np
import pytest
import tensorflow as tf

import tb_nanwatch
from tb_nanwatch.numerics.spans import single_steps
from tb_nanwatch.schema.records import Alert, Counts, Finding, Variable
from tb_nanwatch.watch.boundary import Boundary
from tb_nanwatch.watch.record.history import NO_STEPS
from tb_nanwatch.watch.record.log import MOST_ALERTS, Log, loaded_versions
from tb_nanwatch.watch.record.writer import Writer
from tb_nanwatch.watch.row.cells import Layout

LAYOUT = Layout((Variable("layer/w", "layer", (2,), "float32"),), (), loss=True, clip="none")
ALERT = Alert(1, 0, 0, "skipped", (Finding("loss", "loss", Counts(1, 1, 0, 0)),), NO_STEPS)


@pytest.fixture
def log(tmp_path):
    return Log(LAYOUT, writer=Writer(str(tmp_path)), boundary=Boundary(), policy="record", worker=None)


def steps(*numbers):
    ones = np.ones((len(numbers), 1))
    return single_steps(np.array(numbers), {"loss": ones}, {"loss": np.zeros((len(numbers), 1), np.uint8)})


class TestLog:
    def test_steps_that_go_back_begin_a_session(self, log, tmp_path, read):
        assert (log.header, log.first_step, log.last_step) == (None, -1, -1)
        for numbers in ([3, 4], [7], [5, 6]):
            log.add(steps(*numbers))
        assert (log.header.session, log.first_step, log.last_step) == (1, 5, 6)
        log.close()
        first, second = read(tmp_path).log.sessions
        assert [session.series.first_step.tolist() for session in (first, second)] == [[3, 4, 7], [5, 6]]
        assert (first.header.variables, first.header.stats) == (LAYOUT.variables, ("loss",))

    def test_a_session_may_begin_without_a_step(self, log):
        log.begin(NO_STEPS)
        assert (log.header.session, log.first_step, log.last_step) == (0, 0, -1)

    def test_only_so_many_alerts_are_written_while_training_goes_on(self, log, tmp_path, read):
        log.add(steps(0, 1))
        for step in range(MOST_ALERTS + 3):
            log.write_alert(dataclasses.replace(ALERT, step=step))
        log.write_alert(dataclasses.replace(ALERT, step=99, action="raised"))
        log.close()
        assert [alert.step for alert in read(tmp_path).session.alerts] == [*range(MOST_ALERTS), 99]

    def test_a_log_that_cannot_be_written_is_one_warning_and_still_knows_its_steps(self, log, monkeypatch):
        attempts = []

        def fail(*_, **__):
            attempts.append(1)
            raise OSError("no space")

        monkeypatch.setattr(Writer, "write_spans", fail)
        with pytest.warns(
            UserWarning, match=r"could not write the log, and records nothing more \(no space\)"
        ) as caught:
            for number in range(3):
                log.add(steps(number))
            log.write_alert(ALERT)
            log.close()
        assert (len(caught), len(attempts)) == (1, 1)
        assert (log.header.session, log.first_step, log.last_step) == (0, 0, 2)


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


def test_versions_are_those_of_the_modules(monkeypatch):
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
