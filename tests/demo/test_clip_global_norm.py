"""The demo runs as a user runs it. The norms that it prints itself equal the norms in its log."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir
from tests.programs import read_verdicts, run_demo

CELL = re.compile(r"([\d.e+-]+) -> ([\d.e+-]+) \(([\d.]+)\)")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return tmp_path_factory.mktemp("clip_global_norm")


@pytest.fixture(scope="module")
def printed(logdir):
    """The program's output for each activation."""
    return {
        activation: run_demo("clip_global_norm", logdir, "--activation", activation, "--steps", 60)
        for activation in ("sigmoid", "relu")
    }


def norms_in(text):
    """Return the table as float ``[row, layer, (before, after, ratio)]``."""
    rows = [CELL.findall(line) for line in text.splitlines() if CELL.search(line)]
    return np.array(rows, float)


def test_the_program_prints_the_norms_of_the_chosen_steps(printed):
    shown = [line.split()[1] for line in printed["sigmoid"].splitlines() if CELL.search(line)]
    assert shown == ["0", "1", "3", "10", "30"]


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_global_norm_is_clipped_to_fifteen(printed, activation):
    before, after, _ = np.moveaxis(norms_in(printed[activation]), -1, 0)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.minimum(np.linalg.norm(before, axis=1), 15), rtol=0.01)
    assert np.linalg.norm(before[0]) > 15


def test_the_gradient_of_the_first_layer_vanishes_with_sigmoid_and_not_with_relu(printed):
    assert norms_in(printed["sigmoid"])[:, 0, 2].max() < 0.05
    assert norms_in(printed["relu"])[:, 0, 2].min() > 0.3
    assert "hidden_1: gradient under 10% of the last layer's at 60 of 60 steps" in printed["sigmoid"]
    assert "hidden_1: gradient under 10% of the last layer's at 0 of 60 steps" in printed["relu"]


def test_the_log_holds_the_norms_that_the_program_computes_itself(printed, logdir):
    reader = open_logdir(str(logdir))
    (session,) = reader.log(reader.index(THE_LOGDIR), "sigmoid").sessions
    steps = {int(step): row for row, step in enumerate(session.series.first_step)}
    before, after = norms_in(printed["sigmoid"])[:, :, :2].transpose(2, 0, 1)
    for stat, printed_norms in (("grad_norm", before), ("clipped_norm", after)):
        logged = session.series.column(stat, "max")
        layers = np.linalg.norm(logged.reshape(len(logged), 3, 2), axis=2)
        np.testing.assert_allclose(layers[[steps[step] for step in (0, 1, 3, 10, 30)]], printed_norms, rtol=0.01)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_run_is_finite(printed, logdir, activation):
    (run,) = read_verdicts(logdir, "--run", activation).values()
    assert (run["status"], run["steps_seen"]) == ("finite", 60)
    assert "All 60 steps stayed finite" in printed[activation]
