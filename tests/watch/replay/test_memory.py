"""What a replay keeps in memory: of operations that went bad a few numbers each, and nothing once it is over."""

from __future__ import annotations

import gc
import pickle
from functools import partial

import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from tb_nanwatch.watch.drivers import investigation
from tb_nanwatch.watch.replay import ReplayLimits
from tb_nanwatch.watch.replay.drawn import Drawn, Feed
from tb_nanwatch.watch.replay.probe import Node, Probe
from tb_nanwatch.watch.replay.run import converted, run, trace
from tb_nanwatch.watch.replay.trial import Trial
from tests.watch.replay.programs import GOOD, log_step

ROUNDS = 200


def looks_at(logdir, x, *, bad_from):
    """Return what the probe keeps of a step with a long loop, by type of operation, NaN from a round on."""

    def through(x):
        for number in tf.range(ROUNDS):
            x = tf.tanh(x + tf.sqrt(tf.cast(bad_from - 1 - number, tf.float32)))
        return x

    program = log_step(logdir, through)
    call = program.watch._functions[0].call((x,), {})
    probe, step = Probe(time_limit_s=60.0, feed=Feed(Drawn((), {}))), converted(call.function, is_converted=True)
    traced = trace(step, [x], trial=Trial(program.watch._steps), probe=probe)
    run(traced, [loss for given in traced.given for loss in given.losses])
    return {node.op.type: node.looks for node in probe.nodes if node.looks}


class TestWhatIsKept:
    def test_a_long_healthy_loop_leaves_nothing(self, tmp_path):
        assert looks_at(tmp_path, GOOD, bad_from=ROUNDS) == {}

    def test_each_bad_round_leaves_one_look_of_each_operation(self, tmp_path):
        kept = looks_at(tmp_path, GOOD, bad_from=150)
        assert {kind: len(looks) for kind, looks in kept.items() if kind in {"Sqrt", "AddV2", "Tanh", "Sum"}} == {
            "Sqrt": 50,
            "AddV2": 50,
            "Tanh": 50,
            "Sum": 1,
        }

    def test_a_look_is_small_however_large_the_tensor(self, tmp_path):
        small, large = (looks_at(tmp_path / str(size), tf.ones(size), bad_from=190) for size in (100, 100_000))
        sizes = [len(pickle.dumps(kept["Tanh"])) for kept in (small, large)]
        assert [len(kept["Tanh"]) for kept in (small, large)] == [10, 10]
        assert max(sizes) < 10_000


def built():
    """Return what replays build, as far as anything holds it."""
    gc.collect()
    graphs = [each for each in gc.get_objects() if isinstance(each, FuncGraph) and "nanwatch_trial" in each.name]
    return [*graphs, *(each for each in gc.get_objects() if isinstance(each, Probe | Node | Trial))]


@pytest.mark.parametrize("limit_s", [120.0, 0.0])
def test_what_a_replay_built_is_gone_when_it_is_over(limit_s, tmp_path, monkeypatch):
    monkeypatch.setattr(investigation, "ReplayLimits", partial(ReplayLimits, seconds=limit_s))
    before = built()
    program = log_step(tmp_path)
    program.step(GOOD)
    error = program.bad_step()
    assert error.alert.replay.outcome == ("found" if limit_s else "failed")
    assert [each for each in built() if not any(each is one for one in before)] == []
