"""The test runs the demo as a user does; the norms that the demo prints equal those of its log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir

ROOT = Path(__file__).parents[2]
CELL = re.compile(r"([\d.e+-]+) -> ([\d.e+-]+) \(([\d.]+)\)")


def run_python(*arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return tmp_path_factory.mktemp("clip_global_norm")


@pytest.fixture(scope="module")
def printed(logdir):
    """The output of the program for each activation."""
    texts = {}
    for activation in ("sigmoid", "relu"):
        flags = ["--logdir", logdir, "--activation", activation, "--steps", "60"]
        program = run_python(ROOT / "demo" / "clip_global_norm.py", *flags)
        assert program.returncode == 0, program.stderr
        texts[activation] = program.stdout
    return texts


def norms_in(text):
    """Return the table as float ``[row, layer, (before, after, ratio)]``."""
    rows = [CELL.findall(line) for line in text.splitlines() if CELL.search(line)]
    return np.array(rows, float)


def test_the_table_shows_only_steps_that_ran(printed):
    shown = [line.split()[1] for line in printed["sigmoid"].splitlines() if CELL.search(line)]
    assert shown == ["0", "1", "3", "10", "30"]


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_global_norm_is_clipped_to_fifteen(printed, activation):
    before, after, _ = np.moveaxis(norms_in(printed[activation]), -1, 0)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.minimum(np.linalg.norm(before, axis=1), 15), rtol=0.01)
    assert np.linalg.norm(before[0]) > 15


def test_the_first_layer_vanishes_with_sigmoid_and_not_with_relu(printed):
    assert norms_in(printed["sigmoid"])[:, 0, 2].max() < 0.05
    assert norms_in(printed["relu"])[:, 0, 2].min() > 0.3
    assert "hidden_1: gradient under 10% of the last layer's at 60 of 60 steps" in printed["sigmoid"]
    assert "hidden_1: gradient under 10% of the last layer's at 0 of 60 steps" in printed["relu"]


def test_the_log_holds_the_norms_that_the_demo_computes_by_hand(printed, logdir):
    reader = open_logdir(str(logdir))
    (session,) = reader.log(reader.index(THE_LOGDIR), "sigmoid").sessions
    steps = {int(step): row for row, step in enumerate(session.series.first_step)}
    before, after = norms_in(printed["sigmoid"])[:, :, :2].transpose(2, 0, 1)
    for stat, by_hand in (("grad_norm", before), ("clipped_norm", after)):
        logged = session.series.column(stat, "max")
        layers = np.linalg.norm(logged.reshape(len(logged), 3, 2), axis=2)
        np.testing.assert_allclose(layers[[steps[step] for step in (0, 1, 3, 10, 30)]], by_hand, rtol=0.01)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_the_run_is_finite(printed, logdir, activation):
    answer = run_python("-m", "tb_nanwatch", logdir, "--json", "--run", activation)
    (run,) = json.loads(answer.stdout)["runs"]
    assert (run["status"], run["steps_seen"]) == ("finite", 60)
    assert "All 60 steps stayed finite" in printed[activation]
