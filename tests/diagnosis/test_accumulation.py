"""A total is reported as the sum of its micro-batches only if it grows with their number."""

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
SMALL_NOISE = np.exp(0.2 * np.random.default_rng(5).normal(size=STEPS))
NOISE = np.exp(0.4 * np.random.default_rng(7).standard_t(4, size=STEPS))


def log_of(numbers, norm, total):
    """Return a session with these numbers of micro-batches, norms of a micro-batch, and norms of the total."""
    numbers, norm, total = np.broadcast_arrays(*(np.asarray(given, float) for given in (numbers, norm, total)))
    values = {
        "microbatches": numbers[:, None],
        "microbatch_norm": np.repeat(norm[:, None] / 2, len(HEADER.variables), axis=1),
        "global_norm": total[:, None],
    }
    kinds = {stat: kinds_of(value) for stat, value in values.items()}
    return SessionLog(HEADER, single_steps(np.arange(len(numbers)), values, kinds))


def test_a_mean_is_never_reported():
    assert find_sum(log_of(CHANGING, NOISE, NOISE / np.sqrt(CHANGING))) is None
    assert find_sum(log_of(CHANGING, NOISE, NOISE)) is None


@pytest.mark.parametrize("power", [0.5, 1.0], ids=["independent", "alike"])
def test_a_sum_grows_with_the_number_of_its_micro_batches(power):
    found = find_sum(log_of(CHANGING, NOISE, NOISE * CHANGING**power))
    assert (found.grows, found.first_step, found.microbatches) == (True, 0, 12)
    assert found.ratio == pytest.approx(np.median(CHANGING**power))


@pytest.mark.parametrize("power", [0.5, 1.0], ids=["independent", "alike"])
def test_a_sum_of_divided_losses_does_not_grow(power):
    norm = NOISE / CHANGING
    assert not find_sum(log_of(CHANGING, norm, norm * CHANGING**power)).grows


def test_noise_rarely_makes_divided_losses_grow():
    false_alarms = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        numbers = np.maximum(2, np.round(30 * np.exp(0.3 * random.normal(size=40))))
        norm = np.exp(0.6 * random.standard_t(4, size=40)) / numbers
        false_alarms += find_sum(log_of(numbers, norm, norm * numbers)).grows
    assert false_alarms <= 6


def test_one_change_of_the_number_is_enough_if_the_total_grows_with_it():
    once = np.where(np.arange(STEPS) < STEPS // 2, 4.0, 16.0)
    assert find_sum(log_of(once, 1.0, once)).grows
    assert not find_sum(log_of(once, 1 / once, 1.0)).grows


def test_a_norm_that_shrinks_with_training_does_not_count_as_divided():
    growing = np.round(4 * np.exp(np.arange(STEPS) / 20)) * np.tile([1.0, 2.0], STEPS // 2)
    shrinking = 100 / growing * np.tile([1.0, 2.0], STEPS // 2)
    assert find_sum(log_of(growing, shrinking, shrinking * growing)).grows


def test_a_spike_before_the_end_does_not_hide_a_sum():
    norm = np.where(np.arange(STEPS) < STEPS - 2, 1.0, [1e-8, 1e8] * (STEPS // 2))
    assert find_sum(log_of(CHANGING, norm, norm * CHANGING)).grows


def test_a_constant_number_proves_no_growth():
    assert not find_sum(log_of(CONSTANT, NOISE, 8 * NOISE)).grows
    assert not find_sum(log_of(np.where(np.arange(STEPS) < 9, CHANGING, 8), 1.0, 8.0)).grows


def test_a_log_without_micro_batches_has_no_totals():
    assert find_sum(log_of(np.ones(STEPS), NOISE, 8 * NOISE)) is None


def causes_of(numbers, norm, total, *, role="loss"):
    log = log_of(numbers, norm, total)
    finding = Finding(role, "loss", Counts(size=4, nan=1, pos_inf=0, neg_inf=0))
    alert = Alert(STEPS - 1, 0, 0, "raised", (finding,), log.series)
    verdict = diagnose(RunLog("run", (SessionLog(HEADER, log.series, (alert,)),)))
    return {cause.id: cause.confidence for cause in verdict.causes if cause.id == "accumulated-sum"}


def test_a_growing_sum_is_a_likely_cause_and_an_exploding_sum_a_possible_cause():
    assert causes_of(CHANGING, 1.0, CHANGING) == {"accumulated-sum": "high"}
    rising = np.where(np.arange(STEPS) < STEPS - 4, 8.0, 1e6)
    assert causes_of(CONSTANT, rising / 8, rising) == {"accumulated-sum": "medium"}
    assert causes_of(CONSTANT, 1.0, 8.0) == {}


def test_growth_that_may_be_chance_is_a_cause_of_low_confidence_and_no_warning():
    log = log_of(FEW, SMALL_NOISE, SMALL_NOISE * FEW)
    assert (find_sum(log).grows, find_sum(log).may_grow) == (False, True)
    assert diagnose(RunLog("run", (log,))).warnings == ()
    assert causes_of(FEW, SMALL_NOISE, SMALL_NOISE * FEW) == {"accumulated-sum": "low"}
    assert causes_of(FEW, SMALL_NOISE / FEW, SMALL_NOISE) == {}


def test_a_sum_does_not_explain_a_bad_batch():
    assert causes_of(CHANGING, 1.0, CHANGING, role="input") == {}


def test_a_growing_sum_is_a_warning_of_a_finite_run():
    (warning,) = diagnose(RunLog("run", (log_of(CHANGING, 1.0, CHANGING),))).warnings
    assert (warning.kind, warning.first_step) == ("accumulated-sum", 0)
    assert "12 times the norm of one" in warning.text
