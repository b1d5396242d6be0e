"""A step that cannot run again, or not within its limits: the verdict uses the records, and says so and why."""

from __future__ import annotations

import json
from functools import partial

import keras
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch, cli
from tb_nanwatch.watch.drivers import investigation
from tb_nanwatch.watch.replay import ReplayLimits
from tests.watch.replay.programs import BAD, GOOD, log_step

CANNOT = "The step could not be run again: "


@pytest.fixture
def no_time(monkeypatch):
    monkeypatch.setattr(investigation, "ReplayLimits", partial(ReplayLimits, seconds=0.0))


def assert_told_by_records(error, note):
    """The verdict names nothing that only a replay could know, and says why."""
    verdict = error.verdict
    assert (verdict.first.evidence, verdict.first.phase, verdict.first.op, verdict.first.source) == (
        "records",
        "loss",
        None,
        None,
    )
    assert (verdict.chain, verdict.other_chains) == ((), ())
    assert verdict.notes == (note,)


def test_the_limit_is_two_minutes():
    assert ReplayLimits().seconds == 120.0


def test_a_replay_that_takes_too_long_ends(tmp_path, no_time, read):
    program = log_step(tmp_path)
    program.step(GOOD)
    error = program.bad_step()
    assert_told_by_records(error, f"{CANNOT}it took longer than 0 seconds and was stopped.")
    program.watch.close()
    assert read(tmp_path).verdict.notes == error.verdict.notes


def test_a_loop_that_is_endless_only_in_the_replay_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(investigation, "ReplayLimits", partial(ReplayLimits, seconds=1.0))
    runs = []

    def rounds(x):
        runs.append(x)
        return 3 if len(runs) < 3 else 10**9

    def through(x):
        for _ in tf.range(tf.numpy_function(rounds, [x], tf.int64)):
            x = tf.ensure_shape(tf.abs(x), [2])
        return tf.math.log(x)

    program = log_step(tmp_path, through)
    program.step(GOOD)
    assert_told_by_records(program.bad_step(), f"{CANNOT}it took longer than 1 seconds and was stopped.")
    assert len(runs) == 3


def batches_of(dataset):
    batches = iter(dataset)
    return lambda: next(batches)


def queue_of(rows):
    queue = tf.queue.FIFOQueue(8, [tf.float32], [[2]])
    queue.enqueue_many([rows])
    return queue.dequeue


ROWS = tf.stack([GOOD, BAD, -GOOD, GOOD])


@pytest.mark.parametrize(
    ("draw", "kind"),
    [
        (batches_of(tf.data.Dataset.from_tensor_slices(ROWS)), "IteratorGetNext"),
        (queue_of(ROWS), "QueueDequeueV2"),
    ],
)
def test_a_batch_that_is_drawn_in_a_function_of_the_step_is_not_drawn_again(draw, kind, tmp_path):
    drawn = tf.function(draw)
    program = log_step(tmp_path, lambda x: tf.math.log(x * drawn()), replay=True)
    program.step(GOOD)
    note = f"{CANNOT}it runs {kind}, which would return other values in a second run."
    assert_told_by_records(program.bad_step(GOOD), note)
    assert draw().numpy().tolist() == [-1.0, -2.0]


@pytest.mark.parametrize("given_as", [tf.identity, tf.data.Dataset.from_tensor_slices], ids=["rows", "dataset"])
def test_no_step_is_guessed_where_a_call_takes_many(tmp_path, given_as):
    weight, optimizer, watch = tf.Variable(1.0, name="line/weight"), keras.optimizers.SGD(0.0), Watch(tmp_path)

    @watch.step
    def steps(rows):
        for row in rows:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.math.log(weight * row))
            watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    steps(given_as(tf.stack([GOOD, GOOD])))
    with pytest.raises(NonFiniteError) as caught:
        steps(given_as(tf.stack([GOOD, BAD, -GOOD])))
    assert caught.value.alert.step == 3
    note = f"{CANNOT}it takes many steps in one call, and which batch was that of the bad one is not known."
    assert_told_by_records(caught.value, note)


def test_random_numbers_that_are_not_repeated_leave_the_records_and_are_named(tmp_path):
    tf.random.set_seed(3)
    drawn = tf.function(lambda: tf.random.uniform([2]))
    program = log_step(tmp_path, lambda x: tf.math.log(x) / tf.cast(drawn() > 0.01, tf.float32))

    def train():
        for _ in range(2000):
            program.step(GOOD)

    with pytest.raises(NonFiniteError) as caught:
        train()
    assert caught.value.alert.replay.outcome == "finite"
    first = caught.value.verdict.first
    assert (first.evidence, first.phase, first.op, first.source) == ("records", "loss", None, None)
    assert caught.value.verdict.notes == (
        "The replay of the step was finite, so only the records describe this step.",
        "The step draws random numbers by RandomUniform, which draws others when it is run again.",
    )


class Tag:
    """An argument that no file can hold."""


def test_limits_of_replay_and_archive_are_printed_and_in_the_json(tmp_path, no_time, capsys):
    program = log_step(tmp_path, lambda x, tag: tf.math.log(x))
    tag = Tag()
    program.step(GOOD, tag)
    notes = [
        f"{CANNOT}it took longer than 0 seconds and was stopped.",
        "The batch is saved without more[0], which cannot be stored.",
    ]
    assert list(program.bad_step(BAD, tag).verdict.notes) == notes
    program.watch.close()
    assert cli.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "Note" in line] == [f"  Note: {note}" for note in notes]
    assert f'  Its batch: tb_nanwatch.load_batch("{tmp_path}/batches/step-1.npz")' in lines
    cli.main([str(tmp_path), "--json"])
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["notes"], run["first"]["evidence"], run["first"]["op"]) == (notes, "records", None)
