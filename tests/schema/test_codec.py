"""The JSON encoder accepts and rejects the right values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema.codec import dumps, finite_or_none
from tb_nanwatch.schema.records import Verdict, Verdicts


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_number_is_rejected_at_any_depth(number):
    with pytest.raises(RecordError, match="a number in JSON must be finite"):
        dumps({"a": [1.0, (number,)]})


@pytest.mark.parametrize("value", [np.zeros(2), np.float32(1), {1, 2}, b"bytes"])
def test_an_unsupported_type_is_rejected_by_name(value):
    with pytest.raises(RecordError, match=f"got {type(value).__name__}"):
        dumps([value])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        st.lists,
    )
)
def test_encoded_values_decode_unchanged(value):
    assert json.loads(dumps(value)) == value


def test_names_keep_their_characters():
    verdict = Verdict(run='<script>"\n\u2028é', status="empty", text="", steps_seen=0)
    assert json.loads(dumps(Verdicts((verdict,))))["runs"][0]["run"] == '<script>"\n\u2028é'


@given(st.lists(st.floats()))
def test_non_finite_numbers_become_none(values):
    numbers = finite_or_none(values)
    assert [value is None for value in numbers] == [not np.isfinite(value) for value in values]
    assert json.loads(dumps(list(numbers))) == list(numbers)


def test_numbers_are_rounded_to_significant_digits():
    assert finite_or_none([1 / 3, 123456789.0], digits=4) == (0.3333, 123500000.0)
