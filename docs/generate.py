"""Write ``statistics.md`` from the catalogue, or check that it is up to date (``--check``)."""

from __future__ import annotations

import sys
from pathlib import Path

from tb_nanwatch.schema.generated import write_or_check
from tb_nanwatch.schema.stats import BOOKKEEPING, STATS

TARGET = Path(__file__).parent / "statistics.md"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Spell a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render() -> str:
    """Return the whole page."""
    rows = [
        (f"`{s.key}`", s.scope, s.unit, s.dtype, s.meaning, ", ".join(s.merges), s.combine.replace("_", " "))
        for s in STATS
    ]
    head = (
        "key",
        "of each",
        "unit",
        "dtype",
        "meaning",
        "kept when steps merge",
        "a layer's figure from its variables'",
    )
    books = table(("column", "meaning"), [(f"`{key}`", meaning) for key, meaning in BOOKKEEPING.items()])
    return (
        "# Statistics\n\nGenerated from `tb_nanwatch/schema/stats.py`; change that, then run `make protocol`.\n\n"
        f"{table(head, rows)}\n\nBesides its own merges, every statistic keeps:\n\n{books}\n"
    )


if __name__ == "__main__":
    sys.exit(write_or_check(TARGET, render(), sys.argv[1:]))
