"""The logs of several processes become one session with the most detailed alerts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tb_nanwatch.diagnosis import SessionLog, diagnose
from tb_nanwatch.diagnosis.run_log import RunLog
from tb_nanwatch.numerics.spans import single_steps
from tb_nanwatch.reading.workers import merge_workers
from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Series, Variable

HEADER = Header(0, (Variable("dense/kernel", "dense", (2,), "float32"),), stats=("loss",))
BAD = Finding("loss", "loss", Counts(1, 1, 0, 0))


def written(worker: int, losses: list[float], *alerts: Alert) -> SessionLog:
    values = np.array(losses)[:, None]
    kinds = {"loss": np.where(np.isfinite(values), 0, 1).astype(np.uint8)}
    series = single_steps(np.arange(len(losses)), {"loss": values}, kinds)
    return SessionLog(replace(HEADER, worker=worker), series, alerts)


def alert(step: int, *, worker: int, batch: str | None = None) -> Alert:
    steps = np.arange(step, step + 1)
    return Alert(step, 0, 0, "raised", (BAD,), Series(steps, steps, {}), batch=batch, worker=worker)


def test_the_alert_of_the_affected_process_is_kept():
    echo, own = alert(2, worker=1), alert(2, worker=1, batch="batches/step-2.npz")
    for workers in (
        [written(0, [1.0, 1.0, 1.0], echo), written(1, [1.0, 1.0, np.nan], own)],
        [written(1, [1.0, 1.0, np.nan], own), written(0, [1.0, 1.0, 1.0], echo)],
    ):
        assert merge_workers(workers, []).alerts == (own,)


def test_an_alert_that_only_another_process_wrote_is_kept():
    echo = alert(2, worker=1)
    session = merge_workers([written(0, [1.0, 1.0, 1.0], echo), written(1, [1.0])], [])
    assert session.alerts == (echo,)


def test_the_verdict_on_several_processes_names_the_worker_and_counts_a_step_once():
    workers = [written(0, [1.0, 1.0, 1.0], alert(2, worker=1)), written(1, [3.0, 3.0, np.nan], alert(2, worker=1))]
    verdict = diagnose(RunLog("relu", (merge_workers(workers, []),)))
    assert (verdict.steps_seen, verdict.first.step, verdict.first.worker) == (3, 2, 1)


def test_spans_of_other_variables_are_reported_and_left_out():
    other = written(1, [5.0])
    other = replace(other, header=replace(other.header, variables=()))
    problems: list[str] = []
    session = merge_workers([written(0, [1.0]), other], problems)
    assert session.series.column("loss", "max").ravel().tolist() == [1.0]
    assert problems == [
        "session 0 of worker 1: it watched other variables than the first worker did, so its spans are left out."
    ]
