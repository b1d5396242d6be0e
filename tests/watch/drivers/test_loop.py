"""The loop: when the host reads the device, and what it does about an incident."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tb_nanwatch.errors import NonFiniteError
from tb_nanwatch.watch.drivers.options import LoopOptions
from tb_nanwatch.watch.drivers.steps import Steps
from tb_nanwatch.watch.record.plan import Plan
from tb_nanwatch.watch.row.inputs import StepInputs

BAD = float("nan")
WINDOW = 4
NEVER = 1e9


class Training:
    """Steps of a loop over one scalar variable, and the numbers of the rows that each read of the host takes."""

    def __init__(self, logdir, monkeypatch, *, policy="raise", flush_interval_s=NEVER, **options):
        self.weight = tf.Variable(0.0, name="layer/weight")
        self.verdicts, self.reads = [], []
        chosen = LoopOptions(
            policy, WINDOW, flush_interval_s, str(logdir), replay=False, on_nonfinite=self.verdicts.append, **options
        )
        self.plan = Plan([self.weight], window=WINDOW, policy=policy)
        self.steps = Steps(chosen, self.plan)
        self.loop = self.steps.loop
        self.compiled = tf.function(self._step, autograph=False)
        self.monkeypatch = monkeypatch

    def _step(self, gradient):
        inputs = StepInputs.checked([(gradient, self.weight)], raw=None, loss=None, step=None)
        self.steps.apply(inputs, lambda _: self.weight.assign_sub(gradient))

    def take(self, *gradients):
        for gradient in gradients:
            self.steps.run(lambda gradient=gradient: self.compiled(tf.constant(gradient)), None)
            if not self.reads:
                self._note_reads()

    def _note_reads(self):
        ring = self.plan.device_ring
        rows, self.reads = ring.rows, [(0, 1)]

        def noted(first, last):
            self.reads.append((first, last))
            return rows(first, last)

        self.monkeypatch.setattr(ring, "rows", noted)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    loops = []

    def begin(**options):
        training = Training(tmp_path, monkeypatch, **options)
        loops.append(training.loop)
        return training

    yield begin
    for loop in loops:
        loop.close(quietly=True)


def test_the_host_reads_the_first_step_and_then_at_multiples_of_the_window(begin):
    training = begin()
    training.take(*[1.0] * 13)
    assert training.reads == [(0, 1), (1, 4), (4, 8), (8, 12)]


def test_the_host_reads_each_step_that_comes_later_than_the_flush_interval(begin):
    training = begin(flush_interval_s=1e-9)
    training.take(*[1.0] * 3)
    assert training.reads == [(0, 1), (1, 2), (2, 3)]


def test_closing_reads_what_is_left_once(begin):
    training = begin()
    training.take(*[1.0] * 6)
    training.loop.close()
    training.loop.close()
    assert training.reads == [(0, 1), (1, 4), (4, 6)]


def test_a_step_after_closing_is_read_by_the_next_close(begin):
    training = begin()
    training.take(*[1.0] * 6)
    training.loop.close()
    training.take(1.0)
    training.loop.close()
    assert training.reads[-1] == (6, 7)


def test_by_policy_raise_an_incident_is_an_error_at_once_and_no_longer_waits(begin):
    training = begin()
    training.take(1.0, 1.0)
    with pytest.raises(NonFiniteError, match=r"^Step 2: NaN first appeared in the gradient") as caught:
        training.take(BAD)
    assert (1, 3) in training.reads
    assert caught.value.alert.action == "raised"
    assert [verdict.first.step for verdict in training.verdicts] == [2]
    assert training.plan.device_ring.incident() is None
    assert training.weight.numpy() == -2.0


@pytest.mark.parametrize(("policy", "action"), [("skip", "skipped"), ("record", "recorded")])
def test_by_the_other_policies_an_incident_is_reported_at_once_and_training_goes_on(begin, policy, action):
    training = begin(policy=policy)
    training.take(1.0, BAD, 1.0)
    assert [verdict.first.step for verdict in training.verdicts] == [1]
    assert training.loop._session.last_alert.action == action


def test_bad_steps_in_a_row_are_one_incident(begin):
    training = begin(policy="skip")
    training.take(1.0, BAD, BAD, 1.0, BAD)
    assert [verdict.first.step for verdict in training.verdicts] == [1, 4]


def test_as_many_skips_in_a_row_as_are_allowed_end_training(begin):
    training = begin(policy="skip", max_skips=2)
    training.take(1.0, BAD)
    with pytest.raises(NonFiniteError, match="2 bad steps in a row were skipped"):
        training.take(BAD)


def test_an_error_that_is_not_the_guards_passes_and_is_not_reported(begin):
    training = begin()
    training.take(1.0)

    def end():
        raise tf.errors.OutOfRangeError(None, None, "end of data")

    with pytest.raises(tf.errors.OutOfRangeError):
        training.steps.run(end, None)
    assert training.verdicts == []


def test_the_number_of_the_run_is_known_inside_a_step_only(begin):
    training, numbers = begin(), []
    training.monkeypatch.setattr(training.steps._updates, "apply", lambda inputs, update, *, run: numbers.append(run))
    gradient = tf.constant(1.0)
    for _ in range(2):
        training.steps.run(lambda: training._step(gradient), None)
    tf.function(training._step, autograph=False)(gradient)
    assert numbers == [1, 2, 0]
