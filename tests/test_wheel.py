"""The wheel as a user gets it: built from the sdist without Node, then used without TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.critic_run import BAD_STEP, write_critic

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 300
pytestmark = pytest.mark.wheel


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A process environment whose path holds a shell and nothing else: no Node, no npm, no compiler."""
    path = tmp_path_factory.mktemp("path")
    (path / "sh").symlink_to(shutil.which("sh"))
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return {**kept, "PATH": str(path)}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The wheel of an sdist that holds the files git has or would add, and nothing of an earlier build."""
    clean, dist = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("dist")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clean / name)
    run(sys.executable, "-m", "build", "--outdir", dist, clean, env=environment)
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="session")
def viewing_machine(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], wheel: Path) -> Path:
    """The commands of a fresh virtual environment that holds the wheel and its dependencies."""
    root = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", root, env=environment)
    run(root / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, env=environment)
    return root / "bin"


def test_it_holds_the_page_the_types_and_the_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert {
            "tb_nanwatch/py.typed",
            "tb_nanwatch/schema/nanwatch.proto",
            "tb_nanwatch/plugin/static/index.js",
            "tb_nanwatch/plugin/static/licenses.txt",
        } <= names
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
        assert b"render" in archive.read("tb_nanwatch/plugin/static/index.js")


def test_it_holds_only_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        sources = [name for name in archive.namelist() if name.endswith((".ts", ".tsx", ".mjs", ".map"))]
    assert {re.sub(r"-.*\.", ".", top) for top in tops} == {"tb_nanwatch", "tb_nanwatch.dist-info"}
    assert sources == []


def test_it_needs_no_tensorflow(viewing_machine: Path, environment: dict[str, str]) -> None:
    program = (
        "import importlib.util as u, tb_nanwatch.plugin.loader as l;"
        "print(u.find_spec('tensorflow'), l.NanWatchLoader.__name__, 'site-packages' in l.__file__)"
    )
    done = run(viewing_machine / "python", "-c", program, env=environment, cwd="/")
    assert done.stdout.split() == ["None", "NanWatchLoader", "True"]


def test_its_command_explains_itself(viewing_machine: Path, environment: dict[str, str]) -> None:
    assert "usage: nanwatch" in run(viewing_machine / "nanwatch", "--help", env=environment, cwd="/").stdout


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A logdir with the run of a critic that diverged."""
    directory = tmp_path_factory.mktemp("logdir")
    write_critic(directory / "relu")
    return directory


def test_its_command_reads_a_run(viewing_machine: Path, environment: dict[str, str], logdir: Path) -> None:
    command = [viewing_machine / "nanwatch", logdir, "--json"]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    (relu,) = json.loads(done.stdout)["runs"]
    assert (relu["first"]["step"], relu["first"]["layer"]) == (BAD_STEP, "l3_1")


def announced_address(server: subprocess.Popen[str]) -> str:
    printed = []
    for line in server.stdout:
        printed.append(line)
        if found := re.search(r"TensorBoard \S+ at (http://\S+?)/? ", line):
            return found[1]
    pytest.fail(f"TensorBoard must print its address before it ends; it printed:\n{''.join(printed)}")


@pytest.fixture
def address(viewing_machine: Path, environment: dict[str, str], logdir: Path) -> Iterator[str]:
    """The address of a TensorBoard of that environment, serving the run with its own defaults."""
    command = [viewing_machine / "tensorboard", "--logdir", logdir, "--port", "0"]
    with subprocess.Popen(
        command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield announced_address(server)
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=10)
            # It may wait for its data server for ever.
            server.kill()


def test_tensorboard_lists_the_tab_and_serves_its_page(address: str, wheel: Path) -> None:
    with urlopen(f"{address}/data/plugins_listing", timeout=30) as answer:
        listed = json.load(answer)["nanwatch"]
    assert listed["tab_name"] == "NaN Watch"
    entry = listed["loading_mechanism"]["module_path"]
    with urlopen(f"{address}{entry}", timeout=30) as answer, zipfile.ZipFile(wheel) as archive:
        assert "javascript" in answer.headers["Content-Type"]
        assert answer.read() == archive.read("tb_nanwatch/plugin/static/index.js")


def test_tensorboard_shows_the_run(address: str) -> None:
    end = time.monotonic() + 30
    runs: list[dict[str, object]] = []
    while not runs and time.monotonic() < end:
        with urlopen(f"{address}/data/plugin/nanwatch/verdicts", timeout=30) as answer:
            runs = json.load(answer)["runs"]
        time.sleep(0.2)
    assert [(run["run"], run["status"]) for run in runs] == [("relu", "nonfinite")]
