"""Which files are the user's, wherever packages are installed."""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

import keras
import pytest

from tb_nanwatch.watch import installed
from tb_nanwatch.watch.installed import is_frameworks, is_package, is_program


def mark(directory: Path, name: str = "lib-1.0.dist-info", files: tuple[str, ...] = ()) -> None:
    """Leave what an installer leaves beside a package."""
    (directory / name).mkdir(parents=True)
    record = "".join(f"{file},sha256=x,10\n" for file in (*files, f"{name}/METADATA"))
    (directory / name / "RECORD").write_text(record, encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Put an empty folder first on the search path."""

    def put(name: str) -> Path:
        directory = tmp_path / name
        directory.mkdir(parents=True)
        monkeypatch.setattr(sys, "path", [str(directory), *sys.path])
        return directory

    return put


def test_the_standard_library_and_the_packages_of_this_python_are_not_the_users():
    assert not is_program(sysconfig.__file__)
    assert not is_program(pytest.__file__)
    assert is_package(pytest.__file__)
    assert is_frameworks(keras.__file__)
    assert is_program(__file__)


@pytest.mark.parametrize("directory", ["getusersitepackages", "getsitepackages"])
def test_packages_of_the_user_and_of_the_system_are_packages(directory, monkeypatch, tmp_path):
    place = tmp_path / "python3.11" / "elsewhere"
    monkeypatch.setattr(site, directory, lambda: str(place) if directory == "getusersitepackages" else [str(place)])
    installed._site_directories.cache_clear()
    assert is_package(str(place / "optree" / "ops.py"))
    installed._site_directories.cache_clear()
    assert not is_package(str(place / "optree" / "ops.py").replace("elsewhere", "elsewhere_too"))


@pytest.mark.parametrize("name", ["dist-packages", "other/lib/site-packages"])
@pytest.mark.parametrize("ending", ["dist-info", "egg-info"])
def test_packages_of_another_python_on_the_search_path_are_packages(folder, name, ending):
    directory = folder(name)
    mark(directory, f"lib-1.0.{ending}")
    assert is_package(str(directory / "lib" / "ops.py"))


def test_what_is_installed_beside_the_program_is_a_package_and_the_program_is_not(folder):
    directory = folder("project")
    mark(directory, files=("lib/ops.py", "tests/test_lib.py"))
    assert is_package(str(directory / "lib" / "ops.py"))
    assert is_program(str(directory / "train.py"))
    assert is_program(str(directory / "tests" / "test_train.py"))


def test_a_project_installed_as_editable_is_the_users(folder):
    directory = folder("project/src")
    # Old installers leave this beside the project's own files.
    mark(directory, "project.egg-info")
    assert is_program(str(directory / "project" / "train.py"))


@pytest.mark.parametrize("name", ["site-packages", "site-packages-fixes/src", "keras/train", "tensorflow"])
def test_a_program_in_a_folder_of_such_a_name_is_the_users(folder, name):
    assert is_program(str(folder(name) / "train.py"))


def test_a_package_that_is_reached_through_a_link_is_a_package(folder, tmp_path):
    directory = folder("lib/site-packages")
    mark(directory)
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    assert is_package(str(tmp_path / "lib64" / "site-packages" / "lib" / "ops.py"))


def test_code_that_no_file_holds_is_of_no_package():
    assert not is_package("<string>")
