"""When a total is called the sum of its micro-batches, and above all when it is not."""

from __future__ import annotations

import numpy as np
import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.diagnosis.accumulation import find_sum
from tb_nanwatch.numerics.finiteness import kinds_of
from tb_nanwatch.numerics.spans import single_steps
from tb_nanwatch.schema.records import Alert, Counts, Finding
from tests.event_files import HEADER

STEPS = 60
CHANGING = np.tile([4.0, 16.0, 8.0, 32.0], STEPS // 4)
CONSTANT = np.full(STEPS, 8.0)
FEW = np.where(np.arange(STEPS) < 12, np.tile([8.0, 10.0], STEPS // 2), 8.0)
FAINT = np.exp(0.2 * np.random.default_rng(5).normal(size=STEPS))
NOISE = np.exp(0.4 * np.random.default_rng(7).standard_t(4, size=STEPS))


def log_of(numbers, one, total):
    """Return a log of steps whose variables have micro-batches' gradients with these norms together."""
    numbers, one, total = np.broadcast_arrays(*(np.asarray(given, float) for given in (numbers, one, total)))
    values = {
        "microbatches": numbers[:, None],
        "microbatch_norm": np.repeat(one[:, None] / 2, len(HEADER.variables), axis=1),
        "global_norm": total[:, None],
    }
    kinds = {stat: kinds_of(value) for stat, value in values.items()}
    return SessionLog(HEADER, single_steps(np.arange(len(numbers)), values, kinds))


def test_a_mean_is_none_however_the_number_changes():
    assert find_sum(log_of(CHANGING, NOISE, NOISE / np.sqrt(CHANGING))) is None
    assert find_sum(log_of(CHANGING, NOISE, NOISE)) is None


@pytest.mark.parametrize("power", [0.5, 1.0], ids=["independent", "alike"])
def test_a_sum_grows_with_the_number_of_its_micro_batches(power):
    found = find_sum(log_of(CHANGING, NOISE, NOISE * CHANGING**power))
    assert (found.grows, found.first_step, found.microbatches) == (True, 0, 12)
    assert found.ratio == pytest.approx(np.median(CHANGING**power))


@pytest.mark.parametrize("power", [0.5, 1.0], ids=["independent", "alike"])
def test_the_sum_of_losses_that_were_divided_by_the_number_does_not_grow(power):
    one = NOISE / CHANGING
    assert not find_sum(log_of(CHANGING, one, one * CHANGING**power)).grows


def test_noise_makes_no_sum_of_divided_losses():
    told = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        numbers = np.maximum(2, np.round(30 * np.exp(0.3 * random.normal(size=40))))
        one = np.exp(0.6 * random.standard_t(4, size=40)) / numbers
        told += find_sum(log_of(numbers, one, one * numbers)).grows
    assert told <= 6


def test_a_number_that_changed_once_is_enough_where_the_total_grew_with_it():
    once = np.where(np.arange(STEPS) < STEPS // 2, 4.0, 16.0)
    assert find_sum(log_of(once, 1.0, once)).grows
    assert not find_sum(log_of(once, 1 / once, 1.0)).grows


def test_a_norm_that_shrinks_as_training_goes_on_is_not_divided():
    ever_more = np.round(4 * np.exp(np.arange(STEPS) / 20)) * np.tile([1.0, 2.0], STEPS // 2)
    shrinking = 100 / ever_more * np.tile([1.0, 2.0], STEPS // 2)
    assert find_sum(log_of(ever_more, shrinking, shrinking * ever_more)).grows


def test_a_spike_before_the_end_hides_no_sum():
    one = np.where(np.arange(STEPS) < STEPS - 2, 1.0, [1e-8, 1e8] * (STEPS // 2))
    assert find_sum(log_of(CHANGING, one, one * CHANGING)).grows


def test_of_a_number_that_never_changes_nothing_is_said():
    assert not find_sum(log_of(CONSTANT, NOISE, 8 * NOISE)).grows
    assert not find_sum(log_of(np.where(np.arange(STEPS) < 9, CHANGING, 8), 1.0, 8.0)).grows


def test_a_log_without_micro_batches_has_no_total():
    assert find_sum(log_of(np.ones(STEPS), NOISE, 8 * NOISE)) is None


def causes_of(numbers, one, total, *, role="loss"):
    log = log_of(numbers, one, total)
    finding = Finding(role, "loss", Counts(size=4, nan=1, pos_inf=0, neg_inf=0))
    alert = Alert(STEPS - 1, 0, 0, "raised", (finding,), log.series)
    verdict = diagnose(RunLog("run", (SessionLog(HEADER, log.series, (alert,)),)))
    return {cause.id: cause.confidence for cause in verdict.causes if cause.id == "accumulated-sum"}


def test_a_sum_that_grows_is_a_likely_cause_and_one_that_exploded_a_possible_one():
    assert causes_of(CHANGING, 1.0, CHANGING) == {"accumulated-sum": "high"}
    rising = np.where(np.arange(STEPS) < STEPS - 4, 8.0, 1e6)
    assert causes_of(CONSTANT, rising / 8, rising) == {"accumulated-sum": "medium"}
    assert causes_of(CONSTANT, 1.0, 8.0) == {}


def test_a_sum_that_may_grow_by_chance_is_a_faint_cause_and_no_warning():
    log = log_of(FEW, FAINT, FAINT * FEW)
    assert (find_sum(log).grows, find_sum(log).may_grow) == (False, True)
    assert diagnose(RunLog("run", (log,))).warnings == ()
    assert causes_of(FEW, FAINT, FAINT * FEW) == {"accumulated-sum": "low"}
    assert causes_of(FEW, FAINT / FEW, FAINT) == {}


def test_a_sum_does_not_explain_a_bad_batch():
    assert causes_of(CHANGING, 1.0, CHANGING, role="input") == {}


def test_a_sum_is_told_of_a_finite_run_too():
    (warning,) = diagnose(RunLog("run", (log_of(CHANGING, 1.0, CHANGING),))).warnings
    assert (warning.kind, warning.first_step) == ("accumulated-sum", 0)
    assert "12 times the norm of one" in warning.text
