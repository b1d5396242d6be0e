"""The exact sentences about an origin."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from tb_nanwatch.diagnosis import origin_sentence
from tb_nanwatch.schema.records import Counts, Entry, Operation, Origin, Phase, Source


def origin_at(phase, **facts):
    unknown = dict.fromkeys(("layer", "variable", "tensor", "kind", "op", "source", "counts", "batch"))
    unnumbered = dict.fromkeys(("replica", "worker", "microbatch"))
    given = {"step": 411, "phase": phase, "samples": (), "evidence": "records"} | facts
    return Origin(**(unknown | unnumbered | given))


THREE_INF = Counts(size=64, nan=0, pos_inf=3, neg_inf=0)


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        (
            origin_at("input", tensor="x", kind="nan", counts=THREE_INF, samples=(7, 31, 50)),
            "Step 411: NaN was in the input x, before anything was computed (3 of 64 elements; samples 7, 31, 50).",
        ),
        (
            origin_at(
                "input",
                tensor="scale/mean",
                layer="model/scale",
                kind="nan",
                counts=Counts(size=3, nan=1, pos_inf=0, neg_inf=0),
                source=Source("train.py", 9, "step", "loss = loss_of(model(x))"),
                entry=Entry("captured", (1, 3), ((0, 1),)),
            ),
            (
                "Step 411: NaN was in the tensor scale/mean of shape [1, 3], which the step captures "
                "(train.py:9, in step) in the layer model/scale, before anything was computed "
                "(1 of 3 elements, at [0, 1])."
            ),
        ),
        (
            origin_at("input", kind="pos_inf", entry=Entry("constant", (64,), ((7,),)), counts=THREE_INF, samples=(7,)),
            (
                "Step 411: +Inf was in a constant of shape [64], made of the program's data, before anything was "
                "computed (3 of 64 elements; sample 7)."
            ),
        ),
        (origin_at("input", kind="nan"), "Step 411: NaN was in an input of the step, before anything was computed."),
        (
            origin_at("weights", variable="l3/V", kind="nan"),
            "Step 411: NaN was in the variable l3/V already when watching began.",
        ),
        (
            origin_at("forward", tensor="values", kind="neg_inf"),
            "Step 411: -Inf first appeared in the tensor values, in the forward pass.",
        ),
        (
            origin_at("state", variable="bn/moving_variance", kind="nan"),
            "Step 411: NaN was in what the step wrote to the statistic bn/moving_variance.",
        ),
        (origin_at("loss", kind="pos_inf"), "Step 411: +Inf first appeared in the loss."),
        (
            origin_at("loss", kind="pos_inf", counts=Counts(size=1, nan=0, pos_inf=1, neg_inf=0)),
            "Step 411: +Inf first appeared in the loss.",
        ),
        (
            origin_at("backward", variable="l3_1/V", kind="pos_inf", counts=THREE_INF),
            "Step 411: +Inf first appeared in the gradient of l3_1/V, in the backward pass (3 of 64 elements).",
        ),
        (
            origin_at("backward", layer="l3_1", kind="nan"),
            (
                "Step 411: NaN first appeared in several gradients of the layer l3_1, in the backward pass "
                "(which was first is not recorded)."
            ),
        ),
        (
            origin_at("backward"),
            (
                "Step 411: NaN or Inf first appeared in several gradients, in the backward pass "
                "(which was first is not recorded)."
            ),
        ),
        (
            origin_at("clip", variable="l3/V", kind="nan"),
            "Step 411: NaN first appeared in the clipped gradient of l3/V, finite before clipping.",
        ),
        (
            origin_at("update", variable="l3/V", kind="nan", step=1410),
            "Step 1,410: NaN first appeared in the variable l3/V, after the update of that step.",
        ),
        (
            origin_at("state", kind="nan"),
            (
                "Step 411: NaN first appeared in several statistics that are kept beside the variables "
                "(which was first is not recorded)."
            ),
        ),
    ],
)
def test_a_sentence_gives_step_kind_and_place(origin, sentence):
    assert origin_sentence(origin) == sentence


@pytest.mark.parametrize("phase", get_args(Phase))
def test_every_phase_has_a_sentence_if_nothing_else_is_known(phase):
    assert origin_sentence(origin_at(phase)).startswith("Step 411: NaN or Inf ")


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ((5,), "(sample 5)"),
        ((0, 1), "(samples 0, 1)"),
        (tuple(range(3, 9)), "(samples 3 to 8)"),
        (tuple(range(64)), "(samples 0 to 63, if not more)"),
        (tuple(range(0, 128, 2)), "(samples 0, 2, 4, 6, 8, 10, 12, 14, ...)"),
    ],
)
def test_samples_are_listed_briefly(samples, words):
    assert words in origin_sentence(origin_at("input", tensor="x", samples=samples))


def test_every_sample_is_bad_if_every_element_is():
    everything = Counts(size=640, nan=640, pos_inf=0, neg_inf=0)
    sentence = origin_sentence(origin_at("input", tensor="x", counts=everything, samples=tuple(range(64))))
    assert "(640 of 640 elements; every sample)" in sentence
    some = origin_at(
        "input",
        tensor="x",
        counts=everything,
        samples=(0, 1),
        evidence="replay",
        entry=Entry("argument", (64, 10), ((0, 0),)),
    )
    assert "(640 of 640 elements; samples 0, 1)" in origin_sentence(some)
    single_element = Counts(size=1, nan=1, pos_inf=0, neg_inf=0)
    assert "(sample 0)" in origin_sentence(origin_at("input", tensor="x", counts=single_element, samples=(0,)))


SQUARE = {"op": Operation("Square", "train_step/Square"), "evidence": "replay", "kind": "pos_inf", "counts": THREE_INF}
LINE_41 = Source("critic.py", 41, "train_step", "loss = tf.reduce_mean(tf.square(r - v))")


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        (
            origin_at("loss", **SQUARE, source=LINE_41, samples=(7, 31, 50), layer="loss"),
            (
                "Step 411: +Inf first appeared in the output of Square (critic.py:41, in train_step), in the loss "
                "(3 of 64 elements; samples 7, 31, 50)."
            ),
        ),
        (
            origin_at("forward", **SQUARE, source=LINE_41, layer="l3_1"),
            (
                "Step 411: +Inf first appeared in the output of Square (critic.py:41, in train_step) in the layer "
                "l3_1, in the forward pass (3 of 64 elements)."
            ),
        ),
        (
            origin_at("backward", **SQUARE, layer="l3_1", variable="l3_1/V"),
            (
                "Step 411: +Inf first appeared in the output of Square in the layer l3_1, in the backward pass "
                "(3 of 64 elements)."
            ),
        ),
        (
            origin_at("update", **SQUARE, source=dataclasses.replace(LINE_41, function="<module>")),
            "Step 411: +Inf first appeared in the output of Square (critic.py:41), in the update (3 of 64 elements).",
        ),
        (
            origin_at("weights", variable="l3/V", kind="nan", evidence="replay"),
            "Step 411: NaN was in the variable l3/V already when watching began.",
        ),
        (
            origin_at("state", variable="bn/moving_variance", kind="nan", evidence="replay"),
            "Step 411: NaN was in bn/moving_variance, kept beside the trained variables, as the step began.",
        ),
        (origin_at("input", kind="nan"), "Step 411: NaN was in an input of the step, before anything was computed."),
        (origin_at("forward", kind="nan"), "Step 411: NaN first appeared in the forward pass."),
    ],
)
def test_a_sentence_names_a_known_operation(origin, sentence):
    assert origin_sentence(origin) == sentence


@pytest.mark.parametrize("phase", get_args(Phase))
def test_a_sentence_can_name_an_operation_in_every_phase(phase):
    assert " in the output of Square, in " in origin_sentence(origin_at(phase, **SQUARE))


def test_a_very_long_name_keeps_only_its_ends():
    sentence = origin_sentence(origin_at("forward", tensor="head" + 10_000 * "x" + "tail"))
    assert len(sentence) < 250
    long = "x" * 10_000
    named = origin_at("forward", op=Operation(long, long), source=Source(long, 1, long, long), layer=long)
    assert len(origin_sentence(named)) < 800
    assert "tensor headxxx" in sentence
    assert "xxxtail, in" in sentence
