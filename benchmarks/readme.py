"""Copy the tables of RESULTS.md into README, or check that they are the same (``--check``)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- costs, written by make bench -->", "<!-- end of costs -->"
_TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)


def with_costs(readme: str, results: str) -> str:
    """Return README with the tables of the results as they are.

    Args:
        readme: with the two marks.
        results: RESULTS.md.
    """
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    tables = "\n".join(_TABLE.findall(results))
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write, or check."""
    readme, results = ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md"
    text = readme.read_text(encoding="utf-8")
    expected = with_costs(text, results.read_text(encoding="utf-8"))
    if "--check" not in arguments:
        readme.write_text(expected, encoding="utf-8")
        return 0
    if expected == text:
        return 0
    sys.stderr.write("README's figures must be those of benchmarks/RESULTS.md: run python -m benchmarks.readme\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
