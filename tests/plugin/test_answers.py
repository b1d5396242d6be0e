"""The answers about a log for the page."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog
from tb_nanwatch.plugin import answers
from tb_nanwatch.plugin.answers import heatmap_answer
from tb_nanwatch.plugin.requests import HeatmapRequest
from tb_nanwatch.reading.grouping import LayerCache
from tb_nanwatch.schema.records import Header, Variable
from tests.event_files import HEADER, steps_of


def log_of(header, **norms):
    return RunLog("run", (SessionLog(header, steps_of(0, 3, header=header, **norms)),))


def test_variables_without_an_owner_have_rows_of_their_own():
    names = [("a/k", "a"), ("alone", None), ("a/b", "a"), ("other", None)]
    header = Header(0, tuple(Variable(name, layer, (1,), "float32") for name, layer in names), HEADER.tensors)
    answer = heatmap_answer(
        log_of(header, grad_norm=[[3.0, 1.0, 4.0, 2.0]] * 4), HeatmapRequest("run", columns=1), LayerCache()
    )
    assert [(row.label, row.layer, row.variable) for row in answer.rows] == [
        ("a", "a", None),
        ("alone", None, "alone"),
        ("other", None, "other"),
    ]
    assert answer.values == ((5.0,), (1.0,), (2.0,))


@pytest.mark.parametrize("by", ["layer", "variable"])
def test_a_mean_counts_only_steps_with_a_value(by):
    header = dataclasses.replace(HEADER, variables=HEADER.variables[:1])
    log = log_of(header, grad_norm=np.array([[2.0], [4.0], [np.nan], [6.0]]))
    answer = heatmap_answer(log, HeatmapRequest("run", by=by, keeps="mean", columns=1), LayerCache())
    assert (answer.values, answer.kinds) == (((4.0,),), ((1,),))


def test_many_rows_get_fewer_columns(monkeypatch):
    monkeypatch.setattr(answers, "_MOST_CELLS", 8)
    monkeypatch.setattr(answers, "_FEWEST_COLUMNS", 1)
    answer = heatmap_answer(log_of(HEADER), HeatmapRequest("run", by="variable"), LayerCache())
    assert (len(answer.rows), answer.first_step) == (4, (0, 2))
