"""The demo runs as a user runs it. Its log says what happened."""

from __future__ import annotations

import pytest

from tests.programs import read_verdicts, run_demo

RUNS = {
    "first": ["--activation", "relu"],
    "again": ["--activation", "relu"],
    "clipped": ["--activation", "relu", "--clip-norm", "50"],
    "bounded": ["--activation", "tanh"],
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A function that returns a run's output and verdict. It trains a run at its first call."""
    done = {}

    def outcome(name):
        if name not in done:
            logdir = tmp_path_factory.mktemp(name)
            printed = run_demo("exploding_critic", logdir, *RUNS[name])
            (verdict,) = read_verdicts(logdir).values()
            done[name] = printed, verdict
        return done[name]

    return outcome


def test_relu_diverges_after_at_least_twenty_steps(demo):
    _, run = demo("first")
    assert run["run"] == "relu"
    assert run["status"] == "nonfinite"
    assert run["first"]["step"] >= 20


def test_the_program_prints_the_bad_step_and_how_to_open_the_page(demo):
    printed, run = demo("first")
    assert f"step {run['first']['step']}" in printed.lower()
    assert "tensorboard --logdir" in printed


def test_a_seed_repeats_its_run(demo):
    assert demo("again")[1]["first"]["step"] == demo("first")[1]["first"]["step"]


@pytest.mark.parametrize("name", ["clipped", "bounded"])
def test_with_clipping_or_a_bounded_activation_the_run_is_finite(demo, name):
    printed, run = demo(name)
    assert run["first"] is None
    assert run["steps_seen"] == 1000
    assert "1,000 steps stayed finite" in printed


def test_tanh_causes_no_warning(demo):
    _, run = demo("bounded")
    assert run["status"] == "finite"
    assert run["warnings"] == []
