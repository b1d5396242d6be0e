"""Records reject contradictions."""

from __future__ import annotations

import numpy as np
import pytest

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema.records import Alert, ColumnKey, Counts, Header, Replay, Series, Variable
from tests.replays import SQUARE


def steps(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_a_header_rejects_equal_variable_names():
    variable = Variable("l3/V", "l3", (3, 4), "float32")
    with pytest.raises(RecordError, match="must be unique in a header; 'l3/V' stands there twice"):
        Header(session=0, variables=(variable, variable))


@pytest.mark.parametrize(
    ("first", "last"), [(steps(0, 1), steps(1, 2)), (steps(3, 1), steps(3, 1)), (steps(5), steps(4))]
)
def test_a_series_rejects_spans_that_overlap_or_run_backwards(first, last):
    with pytest.raises(RecordError, match="must be in order of steps and must not overlap"):
        Series(first, last, {})


def test_a_series_rejects_a_column_of_another_length():
    with pytest.raises(RecordError, match="one row for each of its 2 spans"):
        Series(steps(0, 1), steps(0, 1), {ColumnKey("loss", "max"): np.zeros((3, 1))})


@pytest.mark.parametrize("numbers", [(2, 1, 1, 1), (2, -1, 0, 0)])
def test_counts_are_non_negative_and_fit_the_size(numbers):
    with pytest.raises(RecordError, match="must be non-negative and fit the size"):
        Counts(*numbers)


def test_an_alert_needs_findings_or_an_error():
    with pytest.raises(RecordError, match="that of step 7 does not"):
        Alert(step=7, session=0, first_step=0, action="raised", findings=(), window=Series(steps(), steps(), {}))


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [((9, 0, 0, 0), None), ((9, 1, 0, 0), "nan"), ((9, 1, 1, 1), "pos_inf"), ((9, 1, 0, 1), "neg_inf")],
)
def test_the_kind_is_inf_if_a_tensor_holds_inf_and_nan(numbers, kind):
    assert Counts(*numbers).kind == kind


def test_the_width_follows_the_scope():
    header = Header(session=0, variables=(Variable("w", None, (), "float32"),), tensors=("a", "b"))
    assert [header.width(scope) for scope in ("variable", "tensor", "step")] == [1, 2, 1]


@pytest.mark.parametrize(
    ("outcome", "chains"), [("found", ()), ("found", ((),)), ("finite", ((SQUARE,),)), ("failed", ((SQUARE,),))]
)
def test_a_replay_has_chains_exactly_if_its_outcome_is_found(outcome, chains):
    with pytest.raises(RecordError, match=f"if and only if it found one; got '{outcome}'"):
        Replay(outcome, chains=chains)
