"""How large a tag may be: as large as what a watch writes to it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tb_nanwatch.reading.sizes import HEADER_BYTES, bytes_of_tag
from tb_nanwatch.reading.tags import Tag
from tb_nanwatch.schema import wire
from tests.event_files import HEADER, steps_of

SPANS = Tag(0, "spans", "nanwatch/0/spans/0")
ALERT = Tag(0, "alerts", "nanwatch/0/alerts/9-0")
# Of each step the header's variables have 3 and 1 numbers, the loss, the global norm and the one tensor 3 each.
BYTES_A_STEP = 4 * (4 * (3 + 1) + 3 + 3 + 3)


@pytest.mark.parametrize(("last_step", "spans"), [(0, 1), (9, 10), (2047, 2048), (2048, 2048), (10_000_000, 2048)])
def test_a_generation_holds_a_span_for_each_step_up_to_2048(last_step, spans):
    assert bytes_of_tag(SPANS, HEADER, last_step=last_step) == spans * BYTES_A_STEP


@pytest.mark.parametrize(("last_step", "steps"), [(9, 10), (255, 256), (10_000_000, 256)])
def test_an_alert_holds_the_steps_before_it_up_to_256(last_step, steps):
    assert bytes_of_tag(ALERT, HEADER, last_step=last_step) == steps * BYTES_A_STEP


def test_without_a_header_a_tag_counts_as_one():
    assert bytes_of_tag(SPANS, None, last_step=10_000_000) == HEADER_BYTES


def test_what_a_newer_version_measures_is_passed_over():
    header = dataclasses.replace(HEADER, stats=(*HEADER.stats, "novelty"))
    assert bytes_of_tag(SPANS, header, last_step=9) == 10 * BYTES_A_STEP


def test_what_is_written_of_a_finite_run_has_about_the_size_that_was_expected():
    draw = np.random.default_rng(0)
    norms = {stat: draw.random((2048, 4)) for stat in ("grad_norm", "weight_norm")}
    steps = {stat: draw.random(2048) for stat in ("loss", "global_norm", "tensor_norm")}
    written = len(wire.encode_series(steps_of(0, 2047, **norms, **steps)))
    assert 0.9 < written / bytes_of_tag(SPANS, HEADER, last_step=2047) < 1.1
