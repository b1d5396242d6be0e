"""Write ``statistics.md`` from the catalogue of statistics, or check that it is up to date (``--check``)."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generated import markdown_table, write_or_check
from tb_nanwatch.schema.stats import BOOKKEEPING, STATS

TARGET = Path(__file__).parent / "statistics.md"


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
    books = markdown_table(("column", "meaning"), [(f"`{key}`", meaning) for key, meaning in BOOKKEEPING.items()])
    return (
        "# Statistics\n\nGenerated from `tb_nanwatch/schema/stats.py`; change that, then run `make protocol`.\n\n"
        f"{markdown_table(head, rows)}\n\nEvery statistic also keeps:\n\n{books}\n"
    )


if __name__ == "__main__":
    sys.exit(write_or_check(TARGET, render(), sys.argv[1:]))
