"""JSON is strict."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema.codec import dumps, finite_or_none, to_json
from tb_nanwatch.schema.records import Verdict, Verdicts


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_cannot_hold_is_refused_wherever_it_stands(number):
    with pytest.raises(RecordError, match="a number in JSON must be finite"):
        dumps({"a": [1.0, (number,)]})


@pytest.mark.parametrize("value", [np.zeros(2), np.float32(1), {1, 2}, b"bytes"])
def test_what_has_no_spelling_is_refused_by_its_type(value):
    with pytest.raises(RecordError, match=f"got {type(value).__name__}"):
        to_json([value])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        st.lists,
    )
)
def test_what_was_spelt_reads_back(value):
    assert json.loads(dumps(value)) == value


def test_names_keep_their_letters():
    verdict = Verdict(run='<script>"\n\u2028é', status="empty", text="", steps_seen=0)
    assert json.loads(dumps(Verdicts((verdict,))))["runs"][0]["run"] == '<script>"\n\u2028é'


@given(st.lists(st.floats()))
def test_lists_of_numbers_hold_none_where_a_number_is_not_finite(values):
    spelt = finite_or_none(values)
    assert [value is None for value in spelt] == [not np.isfinite(value) for value in values]
    assert json.loads(dumps(list(spelt))) == list(spelt)


def test_numbers_are_short():
    assert finite_or_none([1 / 3, 123456789.0], digits=4) == (0.3333, 123500000.0)
