"""A file that is generated from the schema: written anew, or checked to be up to date."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

OUT_OF_DATE = 1


def write_or_check(target: Path, text: str, arguments: Sequence[str]) -> int:
    """Write a generated file; with ``--check`` only compare.

    Args:
        target: the file.
        text: what it must hold.
        arguments: of the command line.

    Returns:
        The exit status: 0, or :data:`OUT_OF_DATE` where ``--check`` finds that the file differs.
    """
    if "--check" not in arguments:
        target.write_text(text, encoding="utf-8")
        return 0
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{target.name} is out of date: run `make protocol`\n")
    return OUT_OF_DATE
