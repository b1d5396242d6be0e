"""Generated files are written, or compared."""

from __future__ import annotations

import pytest

from docs.generated import markdown_table, with_section, write_or_check

PAGE = "before\n<!-- costs, written by make bench -->\n\nold\n\n<!-- end of costs -->\nafter\n"


def test_a_file_is_written_and_then_up_to_date(tmp_path):
    target = tmp_path / "page.md"
    assert write_or_check(target, "é", []) == 0
    assert target.read_text(encoding="utf-8") == "é"
    assert write_or_check(target, "é", ["--check"]) == 0


def test_a_check_reports_what_differs_and_writes_nothing(tmp_path, capsys):
    target = tmp_path / "page.md"
    assert write_or_check(target, "new", ["--check"]) == 1
    target.write_text("old", encoding="utf-8")
    assert write_or_check(target, "new", ["--check"]) == 1
    assert target.read_text(encoding="utf-8") == "old"
    assert capsys.readouterr().err == "page.md is out of date: run `make protocol`\n" * 2


def test_a_check_names_the_command_that_writes_the_file(tmp_path, capsys):
    assert write_or_check(tmp_path / "page.md", "new", ["--check"], command="make bench") == 1
    assert capsys.readouterr().err == "page.md is out of date: run `make bench`\n"


def test_a_section_is_replaced_between_its_marks():
    replaced = with_section(PAGE, "costs", r"| \1 |")
    assert replaced == PAGE.replace("old", r"| \1 |")
    assert with_section(replaced, "costs", r"| \1 |") == replaced


@pytest.mark.parametrize(("page", "times"), [("no marks", 0), (PAGE * 2, 2)])
def test_a_page_without_its_section_or_with_two_is_refused(page, times):
    with pytest.raises(ValueError, match=f"a page must have its section 'costs' once; it has it {times} times"):
        with_section(page, "costs", "new")


def test_a_table_has_a_head_a_rule_and_its_rows():
    assert markdown_table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
