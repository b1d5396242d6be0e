"""The demo runs as a user runs it. Its log says what happened."""

from __future__ import annotations

import re

import numpy as np
import pytest

from demo import accumulated_policy_gradient
from tb_nanwatch import load_batch
from tests.programs import ROOT, read_verdicts, run_demo

SOURCE = ROOT / "demo" / "accumulated_policy_gradient.py"
SEEDS = (1, 4)
UPDATES = 40


def run_and_read(logdir, *flags):
    """Run the demo, and return what it prints and its verdict."""
    printed = run_demo("accumulated_policy_gradient", logdir, *flags)
    (verdict,) = read_verdicts(logdir).values()
    return printed, verdict


def time_steps(printed):
    """Return how many time steps the pole stood at first and at best."""
    return [int(number) for number in re.findall(r"(\d+) at (?:first|best)", printed)]


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """The logdir, the output and the verdict of a run that sums gradients, by seed. A run may last for a while."""
    runs = {}
    for seed in SEEDS:
        logdir = tmp_path_factory.mktemp(f"sum-{seed}")
        runs[seed] = (logdir, *run_and_read(logdir, "--seed", seed, "--updates", 200))
    return runs


@pytest.fixture(scope="module")
def mean(tmp_path_factory):
    return run_and_read(tmp_path_factory.mktemp("mean"), "--accumulate", "mean", "--updates", UPDATES)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_verdict_names_the_logarithm_of_a_probability_of_0_and_its_mini_batch(sums, seed):
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


def test_the_sum_of_gradients_is_a_likely_cause(sums):
    # The episodes of a seed decide whether the records show enough evidence of it.
    causes = [{cause["id"] for cause in run["causes"]} for _, _, run in sums.values()]
    assert all("logarithm-of-zero" in found for found in causes)
    assert any("accumulated-sum" in found for found in causes)


def test_with_the_mean_of_gradients_the_run_is_finite_without_a_warning_and_learns(mean):
    printed, run = mean
    assert (run["status"], run["steps_seen"], run["warnings"], run["causes"]) == ("finite", UPDATES, [], [])
    assert f"All {UPDATES} updates stayed finite" in printed
    at_first, at_best = time_steps(printed)
    assert at_best > 2 * at_first


def test_a_return_is_the_discounted_sum_of_later_rewards():
    returns = accumulated_policy_gradient.discounted_returns(3)
    np.testing.assert_allclose(returns, [1 + 0.99 + 0.99**2, 1 + 0.99, 1])


def test_the_mini_batches_hold_all_time_steps_in_order():
    moments = accumulated_policy_gradient.Moments(np.zeros((19, 4)), np.arange(19), np.zeros(19))
    batches = list(moments.mini_batches())
    assert [len(batch.states) for batch in batches] == [8, 8, 3]
    assert np.concatenate([batch.actions for batch in batches]).tolist() == list(range(19))
