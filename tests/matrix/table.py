"""Write README's table of what is supported from the matrix that tests it, or check it (``--check``)."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.matrix.ways import ALL, WAYS

README = Path(__file__).parents[2] / "README.md"
ELSEWHERE = (
    ("`MirroredStrategy`, custom loop or `model.fit`", "the same, around `strategy.run`", *("yes",) * 4),
    ("`MultiWorkerMirroredStrategy`, custom loop", "the same, in each process", *("yes",) * 4),
)
"""What needs devices and processes of its own: ``tests/watch/distributed``."""
BEGIN, END = "<!-- ways, written by python -m tests.matrix.table -->", "<!-- end of ways -->"


def rendered() -> str:
    """Return the table in Markdown."""
    head = ("you train by", "you write", *ALL, "operation named (not by record)")
    rows = [
        (
            way.name,
            way.code,
            *("yes" if policy in way.policies else "no" for policy in ALL),
            "yes" if way.replays else "no",
        )
        for way in WAYS
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows, *ELSEWHERE))


def with_table(text: str) -> str:
    """Return README with the table as it should be."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{rendered()}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write, or check."""
    text = README.read_text(encoding="utf-8")
    if "--check" not in arguments:
        README.write_text(with_table(text), encoding="utf-8")
        return 0
    if with_table(text) == text:
        return 0
    sys.stderr.write("README's table must be what the matrix makes of it: run python -m tests.matrix.table\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
