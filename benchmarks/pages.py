"""Copy the tables of RESULTS.md into README and docs/cost.md, or check that they are the same (``--check``)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docs.generated import with_section, write_or_check

ROOT = Path(__file__).parent.parent
_TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Write both pages, or check them; return the exit status."""
    tables = [table.rstrip() for table in _TABLE.findall((ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8"))]
    sections = {
        ROOT / "README.md": ("step costs", tables[0]),
        ROOT / "docs" / "cost.md": ("costs", "\n\n".join(tables)),
    }
    return max(
        write_or_check(
            page,
            with_section(page.read_text("utf-8"), name, text),
            arguments,
            command="python -m benchmarks.pages",
        )
        for page, (name, text) in sections.items()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
