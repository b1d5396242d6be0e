"""Write the table of supported ways to train from the matrix that tests them, or check it (``--check``)."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generated import markdown_table, with_section, write_or_check
from tests.matrix.ways import ALL, WAYS

PAGE = Path(__file__).parents[2] / "docs" / "ways-to-train.md"
ELSEWHERE = (
    ("`MirroredStrategy`, custom loop or `model.fit`", "the same, around `strategy.run`", *("yes",) * 3, "raise, skip"),
    ("`MultiWorkerMirroredStrategy`, custom loop", "the same, in each process", *("yes",) * 3, "raise, skip"),
)
"""Ways that need devices and processes of their own: ``tests/watch/drivers/strategy`` tests them."""


def render() -> str:
    """Return the table in Markdown."""
    rows = [
        (
            way.name,
            way.code,
            *("yes" if policy in way.policies else "no" for policy in ALL),
            ", ".join(way.naming) or "never",
        )
        for way in WAYS
    ]
    return markdown_table(("you train by", "you write", *ALL, "operation named under"), [*rows, *ELSEWHERE])


if __name__ == "__main__":
    text = with_section(PAGE.read_text(encoding="utf-8"), "ways", render())
    sys.exit(write_or_check(PAGE, text, sys.argv[1:], command="python -m tests.matrix.table"))
