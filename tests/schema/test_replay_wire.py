"""A replay decodes unchanged; values of a newer or hostile writer are left out or rejected."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema import nanwatch_pb2 as pb
from tb_nanwatch.schema.records import Replay, Source
from tb_nanwatch.schema.replay_wire import replay_message, replay_record, writable
from tests.replays import CHAIN, LOG, REPLAY, SQUARE, operand
from tests.strategies import replays


@given(replays())
def test_a_replay_decodes_unchanged(replay):
    data = replay_message(replay).SerializeToString()
    assert replay_record(pb.Replay.FromString(data)) == replay


@pytest.mark.parametrize(("field", "value"), [("phase", "dream"), ("kind", "imaginary")])
def test_a_link_with_an_unknown_phase_or_kind_is_left_out(field, value):
    message = replay_message(REPLAY)
    setattr(message.chains[0].links[1], field, value)
    assert replay_record(message).chains[0] == (CHAIN[0], CHAIN[2])


def test_a_chain_with_an_unknown_origin_is_left_out():
    message = replay_message(REPLAY)
    message.chains[1].links[0].phase = "dream"
    assert replay_record(message).chains == (CHAIN,)


def test_a_replay_with_an_unknown_first_origin_is_left_out():
    message = replay_message(REPLAY)
    message.chains[0].links[0].phase = "dream"
    assert replay_record(message) is None


@pytest.mark.parametrize("outcome", ["", "postponed", "finite", "failed"])
def test_an_outcome_that_is_unknown_or_contradicts_the_chains_is_left_out(outcome):
    message = replay_message(REPLAY)
    message.outcome = outcome
    assert replay_record(message) is None


def test_an_unknown_outcome_without_chains_is_left_out():
    assert replay_record(pb.Replay(outcome="postponed")) is None


def test_a_found_origin_without_a_chain_is_left_out():
    assert replay_record(pb.Replay(outcome="found")) is None
    assert replay_record(pb.Replay(outcome="found", chains=[pb.Chain()])) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_ranges_and_durations_are_dropped(value):
    link = dataclasses.replace(LOG, inputs=(operand(value, value),))
    message = replay_message(Replay("found", chains=((link,),), seconds=value))
    decoded = replay_record(message)
    (decoded_input,) = decoded.chains[0][0].inputs
    assert (decoded_input.min, decoded_input.max, decoded.seconds) == (None, None, 0.0)


def test_a_range_of_zero_is_kept():
    link = dataclasses.replace(LOG, inputs=(operand(0.0, 0.0),))
    (decoded_input,) = replay_record(replay_message(Replay("found", chains=((link,),)))).chains[0][0].inputs
    assert (decoded_input.min, decoded_input.max) == (0.0, 0.0)


def test_contradictory_counts_are_rejected():
    message = replay_message(REPLAY)
    message.chains[0].links[0].output.size = 1
    with pytest.raises(RecordError, match="must be non-negative and fit the size"):
        replay_record(message)


def test_bytes_outside_utf8_are_escaped():
    named = dataclasses.replace(SQUARE, source=Source("caf\udce9.py", 1, "f", "x = '\udce9'"))
    source = replay_record(replay_message(Replay("found", chains=((named,),)))).chains[0][0].source
    assert (source.file, source.text) == (r"caf\udce9.py", r"x = '\udce9'")
    assert writable("日本.py") == "日本.py"
