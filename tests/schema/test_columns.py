"""Columns in pieces behave like whole columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tb_nanwatch.schema.columns import PiecedColumns
from tb_nanwatch.schema.records import ColumnKey

COUNT, MAX = ColumnKey("loss", "count"), ColumnKey("loss", "max")


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 30), st.integers(0, 30))
def test_slicing_pieces_equals_slicing_the_whole_column(lengths, first, last):
    total = sum(lengths)
    whole = np.arange(total * 2).reshape(total, 2)
    columns = PiecedColumns({MAX: whole}, {COUNT: np.split(whole, np.cumsum(lengths)[:-1])})
    assert set(columns) == {MAX, COUNT}
    for key in (MAX, COUNT):
        np.testing.assert_array_equal(columns.rows(slice(first, last))[key], whole[first:last])
