"""The verdict of every case is its truth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tb_nanwatch.watch.installed import is_frameworks
from tb_nanwatch.watch.replay import source_lines
from tests.watch.replay.case import Truth
from tests.watch.replay.catalogue import CASES
from tests.watch.replay.outcome import ASPECTS, marks, outcome


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_verdict_is_the_truth(case, tmp_path):
    wrong = [mark for mark in marks(case, outcome(case, tmp_path)) if not mark.right]
    assert wrong == []


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("case", [case for case in CASES if case.truth], ids=lambda case: case.name)
def test_every_marker_stands_on_one_line(case):
    markers = [case.truth.line, *case.truth.also]
    assert all(case.line(marker) > 0 for marker in markers if marker and not marker.isidentifier())


def test_each_aspect_that_is_wrong_is_marked(tmp_path):
    (case,) = [case for case in CASES if case.name == "nan_in_features_and_inf_in_a_label"]
    came = outcome(case, tmp_path)
    nowhere = frozenset(["nowhere"])
    wrong = Truth(
        step=99,
        phase=nowhere,
        layer=nowhere,
        op=nowhere,
        line=None,
        tensor="z",
        samples=(0,),
        variable="v",
        way="constant",
        origins=99,
        also=("z",),
    )
    assert [mark.aspect for mark in marks(replace(case, truth=wrong), came) if not mark.right] == [
        aspect for aspect in ASPECTS if aspect != "line"
    ]
    assert [mark.right for mark in marks(replace(case, truth=None), came)] == [False]


def test_a_line_that_is_wrong_is_marked(tmp_path):
    (case,) = [case for case in CASES if case.name == "cast_to_float16_that_overflows"]
    came = outcome(case, tmp_path)
    assert came.verdict.first.source is not None
    wrong = replace(case.truth, line="one over 0")
    assert [mark.aspect for mark in marks(replace(case, truth=wrong), came) if not mark.right] == ["line"]


def test_the_line_of_a_library_in_the_place_of_the_users_is_marked(tmp_path, monkeypatch):
    (case,) = [case for case in CASES if case.name == "cast_to_float16_that_overflows"]
    monkeypatch.setattr(source_lines, "is_program", lambda filename: not is_frameworks(filename))
    assert [mark.aspect for mark in marks(case, outcome(case, tmp_path)) if not mark.right] == ["line"]


def test_the_first_line_of_a_long_statement_counts_too():
    (case,) = [case for case in CASES if case.name == "expression_on_several_lines"]
    assert case.line(case.truth.line) - min(case.lines(case.truth.line)) == 3
    (case,) = [case for case in CASES if case.name == "softmax_by_hand"]
    assert case.lines(case.truth.line) == {case.line(case.truth.line)}
