"""The goldens equal the answers of the routes; the tests of the page read the same files."""

from __future__ import annotations

import pytest

from tests.golden.generate import HERE, QUESTIONS, answers


@pytest.fixture(scope="module")
def fresh():
    return answers()


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_golden_equals_the_answer_of_its_route(name, fresh):
    assert fresh[name] == (HERE / f"{name}.json").read_text(encoding="utf-8")
