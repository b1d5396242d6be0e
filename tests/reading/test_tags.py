"""Names of runs and tags."""

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


def test_what_the_processes_of_one_training_wrote_is_one_run():
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
    ("path", "is_ours"),
    [
        ("/logs/relu/nanwatch", True),
        ("/logs/relu/nanwatch/worker-1", True),
        ("/logs/relu/worker-1", False),
        ("/logs/relu/nanwatch/worker-x", False),
        ("/logs/nanwatch/relu", False),
    ],
)
def test_a_directory_that_a_watch_writes_to_is_known_by_its_path(path, is_ours):
    assert is_run_directory(path) == is_ours
