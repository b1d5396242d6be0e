"""The test runs the demo as a user does, and reads the result from its log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from demo import accumulated_policy_gradient
from tb_nanwatch import load_batch

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "demo" / "accumulated_policy_gradient.py"
SEEDS = (1, 4)
UPDATES = 40


def run_python(*arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def run_demo(logdir, *flags):
    """Return what the program prints, and its verdict."""
    program = run_python(SOURCE, "--logdir", logdir, *flags)
    assert program.returncode == 0, program.stderr
    (run,) = json.loads(run_python("-m", "tb_nanwatch", logdir, "--json").stdout)["runs"]
    return program.stdout, run


def time_steps(printed):
    """Return how many time steps the pole stood at first and at best."""
    return [int(number) for number in re.findall(r"(\d+) at (?:first|best)", printed)]


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """For each seed, the logdir of a run with sums, its output, and its verdict; a run takes a while."""
    runs = {}
    for seed in SEEDS:
        logdir = tmp_path_factory.mktemp(f"sum-{seed}")
        runs[seed] = (logdir, *run_demo(logdir, "--seed", seed, "--updates", 200))
    return runs


@pytest.fixture(scope="module")
def mean(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("mean"), "--accumulate", "mean", "--updates", UPDATES)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_verdict_names_the_logarithm_of_0_and_its_mini_batch(sums, seed):
    logdir, printed, run = sums[seed]
    first = run["first"]
    assert first["step"] > 5
    assert (first["phase"], first["layer"], first["kind"]) == ("loss", "likelihood", "neg_inf")
    assert (first["op"]["type"], first["source"]["function"]) == ("Log", "__init__")
    assert "tf.math.log(self.policy)" in SOURCE.read_text(encoding="utf-8").splitlines()[first["source"]["line"] - 1]
    assert f"Step {first['step']}: -Inf" in printed
    assert f"micro-batch {first['microbatch']};" in printed
    fed = load_batch(logdir / "sum" / "batches" / f"step-{first['step']}.npz").args[0]
    assert {name: np.shape(value)[1:] for name, value in fed.items()} == {
        "states:0": (4,),
        "actions:0": (),
        "advantages:0": (),
    }


def test_a_likely_cause_is_that_the_gradients_are_a_sum(sums):
    # The confidence depends on the episodes.
    causes = [{cause["id"] for cause in run["causes"]} for _, _, run in sums.values()]
    assert all("logarithm-of-zero" in some for some in causes)
    assert any("accumulated-sum" in some for some in causes)


def test_the_mean_stays_finite_without_a_warning_and_learns(mean):
    printed, run = mean
    assert (run["status"], run["steps_seen"], run["warnings"], run["causes"]) == ("finite", UPDATES, [], [])
    assert f"All {UPDATES} updates stayed finite" in printed
    at_first, at_best = time_steps(printed)
    assert at_best > 2 * at_first


def test_returns_are_discounted_sums_of_later_rewards():
    returns = accumulated_policy_gradient.discounted_returns(3)
    np.testing.assert_allclose(returns, [1 + 0.99 + 0.99**2, 1 + 0.99, 1])


def test_mini_batches_hold_all_time_steps_in_order():
    moments = accumulated_policy_gradient.Moments(np.zeros((19, 4)), np.arange(19), np.zeros(19))
    batches = list(moments.mini_batches())
    assert [len(batch.states) for batch in batches] == [8, 8, 3]
    assert np.concatenate([batch.actions for batch in batches]).tolist() == list(range(19))
