"""Generated files and generated sections of pages: write them, or check that they are up to date."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

OUT_OF_DATE = 1


def write_or_check(target: Path, text: str, arguments: Sequence[str], *, command: str = "make protocol") -> int:
    """Write a generated file; with ``--check`` only compare.

    Args:
        target: the file.
        text: what it must hold.
        arguments: of the command line.
        command: writes the file; the message names it.

    Returns:
        The exit status: 0, or :data:`OUT_OF_DATE` where ``--check`` finds that the file differs.
    """
    if "--check" not in arguments:
        target.write_text(text, encoding="utf-8")
        return 0
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{target.name} is out of date: run `{command}`\n")
    return OUT_OF_DATE


def with_section(page: str, name: str, text: str) -> str:
    r"""Return a page with one generated section replaced.

    Args:
        page: has the marks ``<!-- NAME, written by ... -->`` and ``<!-- end of NAME -->``, each on a line.
        name: of the section.
        text: what the section must hold.

    Raises:
        ValueError: if the page does not have the section exactly once.

    Example:
        >>> with_section("<!-- costs, written by make bench -->\nold\n<!-- end of costs -->\n", "costs", "new")
        '<!-- costs, written by make bench -->\n\nnew\n\n<!-- end of costs -->\n'
    """
    section = re.compile(
        rf"^(<!-- {name}, written by [^\n]* -->\n).*?(^<!-- end of {name} -->$)", re.MULTILINE | re.DOTALL
    )
    replaced, count = section.subn(lambda marks: f"{marks[1]}\n{text}\n\n{marks[2]}", page)
    if count != 1:
        raise ValueError(f"a page must have its section {name!r} once; it has it {count} times")
    return replaced


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
