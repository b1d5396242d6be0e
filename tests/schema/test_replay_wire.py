"""A replay as bytes: there and back, and what a newer or a hostile writer may have put in."""

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
def test_a_replay_reads_back(replay):
    data = replay_message(replay).SerializeToString()
    assert replay_record(pb.Replay.FromString(data)) == replay


@pytest.mark.parametrize(("field", "value"), [("phase", "dream"), ("kind", "imaginary")])
def test_a_hop_that_a_newer_minor_knows_is_passed_over(field, value):
    message = replay_message(REPLAY)
    setattr(message.chains[0].links[1], field, value)
    assert replay_record(message).chains[0] == (CHAIN[0], CHAIN[2])


def test_a_chain_whose_origin_is_not_known_says_nothing():
    message = replay_message(REPLAY)
    message.chains[1].links[0].phase = "dream"
    assert replay_record(message).chains == (CHAIN,)


def test_where_the_first_origin_is_not_known_no_other_is_taken_for_it():
    message = replay_message(REPLAY)
    message.chains[0].links[0].phase = "dream"
    assert replay_record(message) is None


@pytest.mark.parametrize("outcome", ["", "postponed", "finite", "failed"])
def test_an_outcome_that_is_not_known_or_denies_its_chains_is_passed_over(outcome):
    message = replay_message(REPLAY)
    message.outcome = outcome
    assert replay_record(message) is None


def test_a_newer_outcome_without_a_chain_is_passed_over_too():
    assert replay_record(pb.Replay(outcome="postponed")) is None


def test_a_find_without_a_chain_is_passed_over():
    assert replay_record(pb.Replay(outcome="found")) is None
    assert replay_record(pb.Replay(outcome="found", chains=[pb.Chain()])) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_does_not_get_in(value):
    link = dataclasses.replace(LOG, inputs=(operand(value, value),))
    message = replay_message(Replay("found", chains=((link,),), seconds=value))
    back = replay_record(message)
    (given_to_it,) = back.chains[0][0].inputs
    assert (given_to_it.min, given_to_it.max, back.seconds) == (None, None, 0.0)


def test_the_smallest_of_a_tensor_may_be_zero():
    link = dataclasses.replace(LOG, inputs=(operand(0.0, 0.0),))
    (given_to_it,) = replay_record(replay_message(Replay("found", chains=((link,),)))).chains[0][0].inputs
    assert (given_to_it.min, given_to_it.max) == (0.0, 0.0)


def test_counts_that_do_not_add_up_are_refused():
    message = replay_message(REPLAY)
    message.chains[0].links[0].output.size = 1
    with pytest.raises(RecordError, match="must be non-negative and fit the size"):
        replay_record(message)


def test_a_file_whose_name_is_no_text_is_spelled():
    named = dataclasses.replace(SQUARE, source=Source("caf\udce9.py", 1, "f", "x = '\udce9'"))
    source = replay_record(replay_message(Replay("found", chains=((named,),)))).chains[0][0].source
    assert (source.file, source.text) == (r"caf\udce9.py", r"x = '\udce9'")
    assert writable("日本.py") == "日本.py"
