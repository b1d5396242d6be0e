"""The verdict's sentences, word for word."""

from __future__ import annotations

from typing import get_args

import pytest

from tb_nanwatch.diagnosis import origin_sentence
from tb_nanwatch.schema.records import Counts, Origin, Phase


def origin_at(phase, **facts):
    unknown = dict.fromkeys(("layer", "variable", "tensor", "kind", "op", "source", "counts", "batch"))
    nowhere = dict.fromkeys(("replica", "worker", "microbatch"))
    given = {"step": 411, "phase": phase, "samples": (), "evidence": "records"} | facts
    return Origin(**(unknown | nowhere | given))


THREE_INF = Counts(size=64, nan=0, pos_inf=3, neg_inf=0)


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        (
            origin_at("input", tensor="x", kind="nan", counts=THREE_INF, samples=(7, 31, 50)),
            "Step 411: NaN was in the input x, before anything was computed (3 of 64 elements; samples 7, 31, 50).",
        ),
        (
            origin_at("weights", variable="l3/V", kind="nan"),
            "Step 411: NaN was in the variable l3/V already when watching began.",
        ),
        (
            origin_at("forward", tensor="values", kind="neg_inf"),
            "Step 411: -Inf first appeared in the tensor values, in the forward pass.",
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
            "Step 411: NaN first appeared in what is kept beside the variables (moving statistics, optimizer slots).",
        ),
    ],
)
def test_a_sentence_names_step_kind_and_place(origin, sentence):
    assert origin_sentence(origin) == sentence


@pytest.mark.parametrize("phase", get_args(Phase))
def test_every_phase_has_a_sentence_even_where_nothing_else_is_known(phase):
    assert origin_sentence(origin_at(phase)).startswith("Step 411: NaN or Inf ")


def test_of_many_samples_the_first_eight_are_named():
    sentence = origin_sentence(origin_at("input", tensor="x", samples=tuple(range(64))))
    assert "(samples 0, 1, 2, 3, 4, 5, 6, 7, ...)" in sentence
    assert "(sample 5)" in origin_sentence(origin_at("input", tensor="x", samples=(5,)))


def test_a_name_of_ten_kilobytes_keeps_its_ends():
    sentence = origin_sentence(origin_at("forward", tensor="head" + 10_000 * "x" + "tail"))
    assert len(sentence) < 250
    assert "tensor headxxx" in sentence
    assert "xxxtail, in" in sentence
