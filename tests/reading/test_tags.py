"""Names of runs and tags."""

from __future__ import annotations

import pytest

from tb_nanwatch.reading.tags import Tag, parse_tag, shown_runs


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("nanwatch/0/header", Tag(0, "header", "nanwatch/0/header")),
        ("nanwatch/12/spans/3", Tag(12, "spans", "nanwatch/12/spans/3")),
        ("nanwatch/1/alerts/411-0", Tag(1, "alerts", "nanwatch/1/alerts/411-0")),
    ],
)
def test_every_tag_of_a_session_is_known(name, tag):
    assert parse_tag(name) == tag


@pytest.mark.parametrize(
    "name",
    [
        "nanwatch/0/extra",
        "nanwatch/0/header/1",
        "nanwatch/x/header",
        "other/0/header",
        "nanwatch/0/header\n",
        "nanwatch/٣/header",
        f"nanwatch/{'9' * 5000}/header",
        "",
    ],
)
def test_what_is_no_tag_of_ours_is_passed_over(name):
    assert parse_tag(name) is None


def test_a_run_is_called_after_the_directory_that_was_given():
    names = ["relu/nanwatch", "nanwatch", "deep/er/nanwatch", "plain", "my_nanwatch"]
    assert shown_runs(names) == {
        "deep/er": "deep/er/nanwatch",
        "my_nanwatch": "my_nanwatch",
        ".": "nanwatch",
        "plain": "plain",
        "relu": "relu/nanwatch",
    }


def test_two_runs_are_never_called_the_same():
    assert shown_runs([".", "nanwatch"]) == {".": ".", "nanwatch": "nanwatch"}
    assert shown_runs(["a", "a/nanwatch"]) == {"a": "a", "a/nanwatch": "a/nanwatch"}
