"""A copy of this checkout to try a recipe of CONTRIBUTING on, and the files that a recipe names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600
_LEFT_BY_TOOLS = {"__pycache__", ".hypothesis", "node_modules"}
_PATH = re.compile(r"`((?:benchmarks|demo|docs|frontend|tb_nanwatch|tests)/[\w./-]*)`")


def section(page: str, title: str) -> str:
    """Return the text below a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"CONTRIBUTING must have the heading {title!r}"
    return found[1]


def named_paths(text: str) -> set[str]:
    """Return the files and folders that a text names; the name of a folder ends in a slash."""
    return set(_PATH.findall(text))


def unnamed(changed: Iterable[str], named: Iterable[str]) -> list[str]:
    """Return the changed files that are neither named nor in a named folder."""
    named = list(named)
    return [
        path
        for path in changed
        if not any(path == name or (name[-1] == "/" and path.startswith(name)) for name in named)
    ]


class Checkout:
    """A copy of the files that git has or would add."""

    def __init__(self, root: Path) -> None:
        """Copy them below ``root``, and share the packages of the page."""
        self.root = root
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        (root / "frontend" / "node_modules").symlink_to(ROOT / "frontend" / "node_modules")
        self._before = self._contents()

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return (self.root / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        (self.root / path).write_text(text, encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        """Add text to the end of a file."""
        self.write(path, f"{self.read(path).rstrip()}\n{text}")

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace text that a file holds once."""
        text = self.read(path)
        assert text.count(old) == 1, f"{path} must hold {old!r} once; it has it {text.count(old)} times"
        self.write(path, text.replace(old, new))

    def insert_before(self, path: str, name: str, text: str) -> None:
        """Insert text before the assignment of a table."""
        whole = self.read(path)
        start = _start_of(whole, name)
        self.write(path, f"{whole[:start]}{text}\n\n{whole[start:]}")

    def add_entry(self, path: str, table: str, entry: str) -> None:
        """Add an entry to the end of a table, a literal whose closing bracket begins a line."""
        whole = self.read(path)
        end = re.compile(r"^[)\]}]", re.MULTILINE).search(whole, _start_of(whole, table))
        assert end is not None, f"{table} of {path} must end with a bracket at the start of a line"
        self.write(path, f"{whole[: end.start()]}{entry}\n{whole[end.start() :]}")

    def changed(self) -> list[str]:
        """Return the files that were written or changed since the copy was made, without what tools leave."""
        return sorted(path for path, content in self._contents().items() if content != self._before.get(path))

    def run(self, *command: object) -> str:
        """Run a command in the copy, and return what it prints.

        Raises:
            AssertionError: if it fails.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.root,
            env={**kept, "PATH": path, "PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run_tests(self, *arguments: object) -> str:
        """Run tests of the copy, and return what pytest prints."""
        return self.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)

    def _contents(self) -> dict[str, bytes]:
        contents = {}
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name not in _LEFT_BY_TOOLS and not name.endswith("_cache")]
            paths = [Path(folder, name) for name in files]
            contents |= {path.relative_to(self.root).as_posix(): path.read_bytes() for path in paths}
        return contents


def _start_of(text: str, name: str) -> int:
    found = re.search(rf"^(?:export )?(?:const )?{name}\b[^\n]*=[ \n]", text, flags=re.MULTILINE)
    assert found is not None, f"the table {name} must be assigned at the start of a line"
    return found.start()
