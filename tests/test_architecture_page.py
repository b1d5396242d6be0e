"""ARCHITECTURE.md names only files and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
HOP = re.compile(r"^\| `([\w/.]+\.(?:py|tsx?))` \| `([\w.]+)` \|", re.MULTILINE)
"""A row of a walk: a file, and a function in it."""
MENTION = re.compile(r"`([\w/.]+(?:\.(?:py|tsx?)|/))(?:: ([\w.]+))?`")
"""A file or a folder, and perhaps a function in the file."""


def path_of(name, folder=""):
    """The path of a file or folder, from the root, from the package or from a folder of the package."""
    roots = (ROOT, ROOT / "tb_nanwatch", ROOT / "tb_nanwatch" / folder)
    return next((root / name for root in roots if (root / name).exists()), None)


def names_in(path):
    """Every function, class and constant of a file, and every method of Python as ``Class.method``."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"^(?:export )?(?:function|const|class) (\w+)", source, flags=re.MULTILINE))
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def mentions(page):
    """Each mention outside the walks, with the folder of ``watch/`` whose row of the map it stands in."""
    folder = ""
    for line in page.splitlines():
        if line.startswith("#"):
            folder = ""
        if line.startswith("| in `watch/`"):
            folder = "watch"
        if not HOP.match(line):
            found = MENTION.findall(line)
            own = found[0][0] if found and line.startswith("| `") and found[0][0].endswith("/") else ""
            yield from ((f"{folder}/{own}".lstrip("/"), file, function) for file, function in found)


def missing(page):
    """The mentions and hops of a page that name no file or no function in it."""
    named = [("", file, function) for file, function in HOP.findall(page)]
    for folder, file, function in [*named, *mentions(page)]:
        path = path_of(file, folder) or path_of(file, "watch" if folder.startswith("watch") else "")
        if path is None or (function and function not in names_in(path)):
            yield f"{file}: {function}" if function else file


def test_the_page_names_only_files_and_functions_that_exist():
    assert list(missing(PAGE)) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("| `watch/api.py` | `Watch.apply_gradient` |", "watch/api.py: Watch.apply_gradient"),
        ("| `frontend/src/follow.ts` | `followed` |", "frontend/src/follow.ts: followed"),
        ("| `watch/hook.py` | `Hook` |", "watch/hook.py: Hook"),
        ("| `drawing/` | pixels | |", "drawing/"),
        ("| a warning | `diagnosis/signs.py: ALARMS` |", "diagnosis/signs.py: ALARMS"),
    ],
)
def test_a_name_that_does_not_exist_is_found(line, name):
    assert list(missing(line)) == [name]


def test_the_walks_lead_from_the_hook_to_the_pixel_and_to_the_source_line():
    functions = [function for _, function in HOP.findall(PAGE)]
    assert functions[0] == "Watch.apply_gradients"
    assert {"paintHeatmap", "users_line"} <= set(functions)
