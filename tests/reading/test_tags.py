"""The names of runs and tags."""

from __future__ import annotations

import pytest

from tb_nanwatch.reading.tags import Tag, is_run_directory, parse_tag, parts_of_runs, shown_runs


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("nanwatch/0/header", Tag(0, "header", "nanwatch/0/header")),
        ("nanwatch/12/spans/3", Tag(12, "spans", "nanwatch/12/spans/3")),
        ("nanwatch/12/rest", Tag(12, "rest", "nanwatch/12/rest")),
        ("nanwatch/1/alerts/411-0", Tag(1, "alerts", "nanwatch/1/alerts/411-0")),
    ],
)
def test_every_tag_of_a_session_is_parsed(name, tag):
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
def test_an_unknown_tag_is_none(name):
    assert parse_tag(name) is None


def test_a_run_is_named_after_the_directory_above_nanwatch():
    names = ["relu/nanwatch", "nanwatch", "deep/er/nanwatch", "plain", "my_nanwatch"]
    assert shown_runs(names) == {
        "deep/er": "deep/er/nanwatch",
        "my_nanwatch": "my_nanwatch",
        ".": "nanwatch",
        "plain": "plain",
        "relu": "relu/nanwatch",
    }


def test_two_runs_never_have_the_same_name():
    assert shown_runs([".", "nanwatch"]) == {".": ".", "nanwatch": "nanwatch"}
    assert shown_runs(["a", "a/nanwatch"]) == {"a": "a", "a/nanwatch": "a/nanwatch"}


def test_the_processes_of_one_training_form_one_run():
    names = [
        "relu/nanwatch/worker-10",
        "relu/nanwatch/worker-2",
        "relu/nanwatch",
        "nanwatch/worker-1",
        "worker-1/nanwatch",
    ]
    assert parts_of_runs(names) == {
        ".": ("nanwatch/worker-1",),
        "relu": ("relu/nanwatch", "relu/nanwatch/worker-2", "relu/nanwatch/worker-10"),
        "worker-1": ("worker-1/nanwatch",),
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/logs/relu/nanwatch", True),
        ("/logs/relu/nanwatch/worker-1", True),
        ("/logs/relu/worker-1", False),
        ("/logs/relu/nanwatch/worker-x", False),
        ("/logs/nanwatch/relu", False),
    ],
)
def test_the_path_shows_whether_a_watch_writes_to_a_directory(path, expected):
    assert is_run_directory(path) == expected
