"""The engine asks a driver for traces, and turns what the first of them shows into the record of a replay."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.schema.records import Link, Operation, Replay
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.owners import Owners
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.replay import Evidence, ReplayLimits, current_trial
from tb_nanwatch.watch.replay.engine import replay
from tb_nanwatch.watch.replay.function_trace import FunctionTracer
from tb_nanwatch.watch.replay.step_trace import CannotReplayError
from tb_nanwatch.watch.row.inputs import StepInputs

LIMITS = ReplayLimits(seconds=60.0)


def trace_of(function, x):
    """Trace a step whose loss is a function of its argument."""
    weight = tf.Variable(1.0, name="weight")

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(x)) * weight
        pairs = [(tape.gradient(loss, weight), weight)]
        current_trial().apply(StepInputs(pairs, None, loss, None), lambda pairs: None)

    evidence = Evidence([weight], describe([weight], [None], Owners()))
    return next(FunctionTracer(Call(step, (tf.constant(x),), {}), None).traces(evidence, LIMITS))


class Tracer:
    """Yields the given traces, and notes how many were asked for and whether it was closed."""

    def __init__(self, *traces, applied=None):
        self.given, self.applied = traces, applied
        self.asked, self.is_closed = 0, False

    def traces(self, evidence, limits):
        try:
            for trace in self.given:
                self.asked += 1
                if isinstance(trace, Exception):
                    raise trace
                yield trace
        finally:
            self.is_closed = True

    def applied_update(self, evidence):
        return self.applied


def run(*traces, applied=None):
    tracer = Tracer(*traces, applied=applied)
    return tracer, replay(tracer, Evidence([], []), limits=LIMITS)


def test_a_replay_that_finds_the_operation_asks_for_no_other_trace():
    tracer, found = run(trace_of(tf.math.log, [0.0]), trace_of(tf.sqrt, [-1.0]))
    assert (found.outcome, found.chains[0][0].op.type) == ("found", "Log")
    assert (tracer.asked, tracer.is_closed) == (1, True)


def test_a_finite_replay_asks_for_the_next_trace():
    tracer, found = run(trace_of(tf.math.log, [1.0]), trace_of(tf.sqrt, [-1.0]))
    assert (found.outcome, found.chains[0][0].op.type) == ("found", "Sqrt")
    assert (tracer.asked, tracer.is_closed) == (2, True)


def test_a_replay_whose_traces_all_stay_finite_says_so():
    tracer, found = run(trace_of(tf.math.log, [1.0]), trace_of(tf.sqrt, [1.0]))
    assert (found.outcome, found.chains, tracer.asked) == ("finite", (), 2)


def test_an_update_that_the_driver_names_is_not_traced():
    link = Link(Operation("ApplyAdam", "a"), "update", None, "nan", None)
    tracer, found = run(applied=Replay("found", (), ((link,),)))
    assert (found.chains, tracer.asked) == (((link,),), 0)


def test_a_step_that_cannot_run_again_is_a_failed_replay_with_the_reason():
    tracer, found = run(CannotReplayError("it did not reach watch.apply_gradients"))
    assert (found.outcome, tracer.is_closed) == ("failed", True)
    assert found.notes == ("The step could not be run again: it did not reach watch.apply_gradients.",)


def test_all_chains_come_in_the_order_of_the_data_flow():
    def loss(x):
        return tf.sqrt(x[1:] - 1.0) + tf.math.log(x[:1])

    _, found = run(trace_of(loss, np.zeros(2, "float32")))
    assert [chain[0].op.type for chain in found.chains] == ["Sqrt", "Log"]


@pytest.mark.parametrize(
    ("known", "scope"),
    [
        ({}, "whole step"),
        ({"roles": frozenset({"loss", "state"})}, "gradients"),
        ({"roles": frozenset({"state"})}, "state"),
        ({"roles": frozenset({"gradient"}), "bad_variables": frozenset({"w"})}, "last update"),
    ],
)
def test_the_evidence_decides_how_much_is_in_question(known, scope):
    assert Evidence([], [], **known).scope == scope
