"""The test runs the demo as a user does, and reads the result from its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = {
    "first": ["--activation", "relu"],
    "again": ["--activation", "relu"],
    "clipped": ["--activation", "relu", "--clip-norm", "50"],
    "bounded": ["--activation", "tanh"],
}


def run_python(*arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def read_verdict(logdir):
    answer = run_python("-m", "tb_nanwatch", logdir, "--json")
    (run,) = json.loads(answer.stdout)["runs"]
    return run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return a function that returns a run's output and verdict, and trains on the first call."""
    done = {}

    def outcome(name):
        if name not in done:
            logdir = tmp_path_factory.mktemp(name)
            program = run_python(ROOT / "demo" / "exploding_critic.py", "--logdir", logdir, *RUNS[name])
            assert program.returncode == 0, program.stderr
            done[name] = program.stdout, read_verdict(logdir)
        return done[name]

    return outcome


def test_relu_diverges_after_many_finite_steps(demo):
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
def test_clipping_or_a_bounded_activation_keeps_it_finite(demo, name):
    printed, run = demo(name)
    assert run["first"] is None
    assert run["steps_seen"] == 1000
    assert "1,000 steps stayed finite" in printed


def test_the_run_with_tanh_has_no_warning(demo):
    _, run = demo("bounded")
    assert run["status"] == "finite"
    assert run["warnings"] == []
