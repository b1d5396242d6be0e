"""Generated files are written, or compared."""

from __future__ import annotations

from tb_nanwatch.schema.generated import write_or_check


def test_a_file_is_written_and_then_up_to_date(tmp_path):
    target = tmp_path / "page.md"
    assert write_or_check(target, "é", []) == 0
    assert target.read_text(encoding="utf-8") == "é"
    assert write_or_check(target, "é", ["--check"]) == 0


def test_a_check_tells_what_differs_and_writes_nothing(tmp_path, capsys):
    target = tmp_path / "page.md"
    assert write_or_check(target, "new", ["--check"]) == 1
    target.write_text("old", encoding="utf-8")
    assert write_or_check(target, "new", ["--check"]) == 1
    assert target.read_text(encoding="utf-8") == "old"
    assert capsys.readouterr().err == "page.md is out of date: run `make protocol`\n" * 2
