"""What a replay keeps in memory: a few numbers for each operation that went bad, and nothing once it is over."""

from __future__ import annotations

import gc
import pickle
from functools import partial

import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from tb_nanwatch.watch.drivers import investigation
from tb_nanwatch.watch.record.draws import NO_DRAWS, DrawFeed
from tb_nanwatch.watch.replay import ReplayLimits
from tb_nanwatch.watch.replay.instrument import Instrument
from tb_nanwatch.watch.replay.probe import Node, Probe
from tb_nanwatch.watch.replay.tracing import trace
from tb_nanwatch.watch.replay.trial import Trial
from tb_nanwatch.watch.tf_internals import converted
from tests.watch.replay.programs import GOOD, log_step

ROUNDS = 200


def executions_in(logdir, x, *, bad_from):
    """Return the executions that the probe keeps of a long loop, by type of operation; NaN from a round on."""

    def through(x):
        for number in tf.range(ROUNDS):
            x = tf.tanh(x + tf.sqrt(tf.cast(bad_from - 1 - number, tf.float32)))
        return x

    program = log_step(logdir, through)
    call = program.watch._functions[0].call((x,), {})
    probe, step = Probe(time_limit_s=60.0), converted(call.function, is_converted=True)
    trial = Trial(program.watch._steps)
    traced = trace(step, [x], trial=trial, instrument=Instrument(probe, DrawFeed(NO_DRAWS)))
    traced.run([loss for update in trial.step_updates for loss in update.losses])
    return {node.op.type: node.executions for node in probe.nodes if node.executions}


class TestExecutions:
    def test_a_long_healthy_loop_leaves_nothing(self, tmp_path):
        assert executions_in(tmp_path, GOOD, bad_from=ROUNDS) == {}

    def test_each_bad_round_leaves_one_execution_of_each_operation(self, tmp_path):
        kept = executions_in(tmp_path, GOOD, bad_from=150)
        assert {kind: len(found) for kind, found in kept.items() if kind in {"Sqrt", "AddV2", "Tanh", "Sum"}} == {
            "Sqrt": 50,
            "AddV2": 50,
            "Tanh": 50,
            "Sum": 1,
        }

    def test_an_execution_is_small_for_a_large_tensor_too(self, tmp_path):
        small, large = (executions_in(tmp_path / str(size), tf.ones(size), bad_from=190) for size in (100, 100_000))
        sizes = [len(pickle.dumps(kept["Tanh"])) for kept in (small, large)]
        assert [len(kept["Tanh"]) for kept in (small, large)] == [10, 10]
        assert max(sizes) < 10_000


def objects_of_replays():
    """Return the objects of replays that are still alive."""
    gc.collect()
    graphs = [each for each in gc.get_objects() if isinstance(each, FuncGraph) and "nanwatch_trial" in each.name]
    return [*graphs, *(each for each in gc.get_objects() if isinstance(each, Probe | Node | Trial))]


@pytest.mark.parametrize("limit_s", [120.0, 0.0])
def test_no_object_of_a_replay_is_alive_after_it(limit_s, tmp_path, monkeypatch):
    monkeypatch.setattr(investigation, "ReplayLimits", partial(ReplayLimits, seconds=limit_s))
    before = objects_of_replays()
    program = log_step(tmp_path)
    program.step(GOOD)
    error = program.bad_step()
    assert error.alert.replay.outcome == ("found" if limit_s else "failed")
    assert [each for each in objects_of_replays() if not any(each is other for other in before)] == []
