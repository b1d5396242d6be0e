"""Which files belong to the user's program, which to installed packages, which to the frameworks.

An installer leaves marks: the directories that Python has for packages, and beside packages anywhere else a
``*.dist-info`` directory with the list of their files. A project that is installed as editable has its mark in another
place than its files, so it stays the user's.
"""

from __future__ import annotations

import csv
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_FRAMEWORKS: Final = ("tensorflow", "keras", "tf_keras", "tb_nanwatch")
_LIBRARIES: Final = ("tensorflow_probability", "tensorflow_estimator", "tf_slim")
"""Packages that build on the frameworks: they are libraries too where they run from a checkout of their sources."""
_PACKAGE_DIRECTORIES: Final = frozenset({"site-packages", "dist-packages"})
_MARKS: Final = (".dist-info", ".egg-info")


def is_program(filename: str) -> bool:
    """Return whether a file is a part of the user's program: of no framework, no package and not of Python itself."""
    return not is_frameworks(filename) and not is_package(filename) and not _is_under(filename, _standard_library())


def is_package(filename: str) -> bool:
    """Return whether a file is a part of an installed package, which may be a framework."""
    search_path = tuple(map(os.fsdecode, sys.path))
    if _is_under(filename, _site_directories(search_path)) or _is_under(filename, _roots_of(_LIBRARIES)):
        return True
    return any(form in _installed_beside_programs(search_path) for form in _forms(filename))


def is_frameworks(filename: str) -> bool:
    """Return whether a file is a part of TensorFlow, Keras or the watch."""
    return _is_under(filename, _roots_of(_FRAMEWORKS))


@cache
def own_directory() -> str:
    """Return the directory of the watch itself, with a separator at its end."""
    return _roots_of(("tb_nanwatch",))[0]


def _is_under(filename: str, directories: Iterable[str]) -> bool:
    directories = tuple(directories)
    return any(form.startswith(directories) for form in _forms(filename))


@cache
def _forms(filename: str) -> tuple[str, ...]:
    """Return a file's path as it is written and with its links followed; nothing for code that no file holds."""
    if filename.startswith("<"):
        return ()
    return tuple(dict.fromkeys(os.path.normcase(path(filename)) for path in (os.path.abspath, os.path.realpath)))


def _directory_forms(directories: Iterable[str]) -> tuple[str, ...]:
    return tuple(os.path.join(form, "") for directory in directories if directory for form in _forms(directory))


@cache
def _roots_of(packages: tuple[str, ...]) -> tuple[str, ...]:
    return _directory_forms(os.path.dirname(origin) for name in packages if (origin := _origin_of(name)))


def _origin_of(package: str) -> str | None:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return getattr(sys.modules.get(package), "__file__", None)
    return spec.origin if spec else None


@cache
def _standard_library() -> tuple[str, ...]:
    return _directory_forms(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib"))


@cache
def _site_directories(search_path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the directories that hold packages and nothing else."""
    pythons = [sysconfig.get_paths()[key] for key in ("purelib", "platlib")]
    # The site module of an old virtualenv lacks the function.
    pythons += getattr(site, "getsitepackages", list)()
    others = [entry for entry in search_path if os.path.basename(os.path.normpath(entry)) in _PACKAGE_DIRECTORIES]
    marked = [entry for entry in others if any(_marks(entry, _MARKS))]
    return _directory_forms([*pythons, site.getusersitepackages(), *marked])


@cache
def _installed_beside_programs(search_path: tuple[str, ...]) -> frozenset[str]:
    """Return the files that an installer put into directories that may hold a program too, as ``--target`` does."""
    known = _site_directories(search_path)
    entries = [entry for entry in search_path if not _is_under(os.path.join(entry, "x"), known)]
    return frozenset(
        form
        for entry in entries
        for mark in _marks(entry, (".dist-info",))
        for name in _recorded_files(mark)
        for form in _forms(os.path.join(entry or os.getcwd(), name))
    )


def _marks(directory: str, endings: tuple[str, ...]) -> Iterator[Path]:
    try:
        yield from (entry for entry in Path(directory or ".").iterdir() if entry.name.endswith(endings))
    except OSError:
        return


def _recorded_files(mark: Path) -> Iterator[str]:
    try:
        with (mark / "RECORD").open(encoding="utf-8", newline="") as record:
            yield from (row[0] for row in csv.reader(record) if row and row[0].endswith(".py"))
    except (OSError, ValueError, csv.Error):
        return
