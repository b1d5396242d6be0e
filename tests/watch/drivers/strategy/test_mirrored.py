"""Two devices in one process: each replica is measured by itself, and all stop at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tb_nanwatch.diagnosis import RunLog, diagnose
from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir
from tests.watch.drivers.strategy.processes import Result, run_one, values

CASES = {
    "bare": "--bare",
    "watched": "",
    "skipping, healthy": "--policy skip",
    "without the batch": "--bare --leave-out",
    "skipped": "--policy skip --bad 1",
    "recorded": "--policy record --bad 0",
    "raised": "--plain --bad 1",
    "state": "--bad 1",
    "built in the step": "--way unbuilt --bad 0",
    "scaled, bare": "--scaled --bare",
    "scaled, built in the step": "--scaled --way unbuilt",
    "v1, bare": "--way v1 --bare",
    "v1": "--way v1",
    "v1, raised": "--way v1 --plain --bad 0",
    "fit, bare": "--way fit --bare",
    "fit": "--way fit",
    "fit, raised": "--way fit --plain --bad 1",
}


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirrored")


@pytest.fixture(scope="module")
def results(logdir: Path) -> dict[str, Result]:
    return dict(zip(CASES, run_one(list(CASES.values()), logdir), strict=True))


def log_of(case: str, logdir: Path) -> RunLog:
    reader = open_logdir(str(logdir / str(list(CASES).index(case))))
    return reader.log(reader.index(THE_LOGDIR), ".")


@pytest.mark.parametrize(
    ("watched", "bare"),
    [
        ("watched", "bare"),
        ("skipping, healthy", "bare"),
        ("scaled, built in the step", "scaled, bare"),
        ("v1", "v1, bare"),
        ("fit", "fit, bare"),
    ],
)
def test_a_watched_training_ends_with_the_weights_of_a_bare_one(results, watched, bare):
    np.testing.assert_array_equal(values(results[watched]), values(results[bare]))
    assert results[watched]["warnings"] == []


@pytest.mark.parametrize(
    ("case", "replica", "phase", "op"),
    [
        ("raised", 1, "loss", "Square"),
        ("state", 1, "state", "SquaredDifference"),
        ("built in the step", 0, "state", "SquaredDifference"),
        ("v1, raised", 0, "loss", "Square"),
        ("fit, raised", 1, "loss", "Square"),
    ],
)
def test_the_verdict_names_the_replica_that_was_first_and_its_operation(results, case, replica, phase, op):
    found = results[case]
    assert (found["step"], found["replica"], found["worker"]) == (5, replica, None)
    assert (found["phase"], found["op"], found["evidence"]) == (phase, op, "replay")


@pytest.mark.parametrize("case", ["raised", "state", "v1, raised", "fit, raised"])
def test_no_replica_takes_a_bad_step(results, case):
    assert np.isfinite(values(results[case])).all()
    first, second = results[case]["weights"]
    assert first[0] == second[0]


def test_a_skipped_step_leaves_no_trace_on_any_replica(results, logdir):
    np.testing.assert_array_equal(values(results["skipped"]), values(results["without the batch"]))
    verdict = diagnose(log_of("skipped", logdir))
    assert (verdict.skipped_steps, verdict.steps_seen, verdict.first.replica) == (1, 8, 1)
    assert verdict.first.op.type == "SquaredDifference"


def test_a_step_that_is_only_recorded_trains_on(results, logdir):
    assert not np.isfinite(values(results["recorded"])).all()
    first = diagnose(log_of("recorded", logdir)).first
    assert (first.replica, first.op) == (0, None)


def test_a_step_is_one_span_of_all_its_replicas(logdir):
    (session,) = log_of("watched", logdir).sessions
    smallest, mean, largest = (session.series.column("loss", keeps)[:, 0] for keeps in ("min", "mean", "max"))
    assert len(session.series) == 8
    assert (smallest < largest).all()
    np.testing.assert_allclose(mean, (smallest + largest) / 2, rtol=1e-6)
    assert (session.series.column("loss", "count") == 1).all()
    assert session.header.tensors == ("error",)


def test_a_strategy_that_cannot_be_watched_is_named_once_and_trains_on(tmp_path):
    bare, watched = run_one(
        ["--strategy central --plain --way v1 --bare", "--strategy central --plain --way v1"], tmp_path
    )
    (warning,) = watched["warnings"]
    assert "does not watch a step that CentralStorageStrategy runs" in warning
    np.testing.assert_array_equal(values(watched), values(bare))


def test_with_one_device_no_replica_is_named(tmp_path):
    bare, watched, bad = run_one([f"--strategy one {case}" for case in ("--bare", "", "--plain --bad 0")], tmp_path)
    np.testing.assert_array_equal(values(watched), values(bare))
    assert (bad["step"], bad["op"], bad["replica"]) == (5, "Square", None)
