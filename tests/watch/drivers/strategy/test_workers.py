"""Two processes that reduce their gradients over the loopback: they stop at the same step, and none waits for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tb_nanwatch.diagnosis import diagnose
from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir
from tb_nanwatch.schema.records import Verdict
from tests.watch.drivers.strategy.processes import Result, run_two, values

CASES = {
    "bare": "--bare",
    "watched": "",
    "raised": "--plain --bad 1",
    "state": "--bad 0",
    "without the batch": "--bare --leave-out --smaller",
    # The replay makes TensorFlow trace the step again. Processes with different traces would wait for each other.
    "skipped": "--policy skip --bad 1 --smaller",
}


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def results(logdir: Path) -> dict[str, list[Result]]:
    return dict(zip(CASES, zip(*run_two(list(CASES.values()), logdir), strict=True), strict=True))


def verdict_of(case: str, logdir: Path) -> Verdict:
    reader = open_logdir(str(logdir / str(list(CASES).index(case))))
    index = reader.index(THE_LOGDIR)
    assert list(index.names) == ["."]
    return diagnose(reader.log(index, "."))


@pytest.mark.parametrize(("case", "worker"), [("raised", 1), ("state", 0)])
def test_every_process_raises_at_the_same_step_and_names_the_worker_that_was_bad(results, case, worker):
    for process in results[case]:
        assert (process["step"], process["worker"], process["replica"]) == (5, worker, None)
        assert process["seconds"] < 60
        assert np.isfinite(values(process)).all()


def test_the_process_that_was_bad_names_the_operation(results):
    other, bad = results["raised"]
    assert (bad["phase"], bad["op"], bad["evidence"]) == ("loss", "Square", "replay")
    assert (other["phase"], other["evidence"]) == ("loss", "records")


@pytest.mark.parametrize(("watched", "bare"), [("watched", "bare"), ("skipped", "without the batch")])
def test_a_watched_training_ends_with_the_weights_of_a_bare_one(results, watched, bare):
    for with_watch, without in zip(results[watched], results[bare], strict=True):
        np.testing.assert_array_equal(values(with_watch), values(without))


def test_the_processes_are_read_as_one_run(results, logdir):
    assert (logdir / "2" / "nanwatch" / "worker-1").is_dir()
    verdict = verdict_of("raised", logdir)
    assert (verdict.status, verdict.steps_seen, verdict.problems) == ("nonfinite", 6, ())
    assert (verdict.first.step, verdict.first.worker, verdict.first.op.type) == (5, 1, "Square")
    assert verdict.first.batch == "batches/step-5.npz"


def test_what_is_healthy_and_what_is_skipped_counts_once(results, logdir):
    assert (verdict_of("watched", logdir).status, verdict_of("watched", logdir).steps_seen) == ("finite", 8)
    skipped = verdict_of("skipped", logdir)
    assert (skipped.skipped_steps, skipped.steps_seen, skipped.first.worker) == (1, 8, 1)
    assert skipped.first.op.type == "SquaredDifference"
