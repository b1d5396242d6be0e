"""The goldens are what the routes answer; the page's tests read the same files."""

from __future__ import annotations

import pytest

from tests.golden.generate import HERE, QUESTIONS, answers


@pytest.fixture(scope="module")
def fresh():
    return answers()


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_golden_is_what_the_route_answers(name, fresh):
    assert fresh[name] == (HERE / f"{name}.json").read_text(encoding="utf-8")
