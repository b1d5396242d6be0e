"""What README says runs, runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def run(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def after_the_blocks(tmp_path_factory):
    directory = tmp_path_factory.mktemp("readme")
    program = directory / "readme.py"
    program.write_text("\n".join(["import tensorflow as tf", "import tb_nanwatch", *BLOCKS]), encoding="utf-8")
    done = run([str(program)], directory)
    assert done.returncode == 0, done.stderr
    return directory


def test_the_python_blocks_run_one_after_the_other_and_leave_the_runs_they_name(after_the_blocks):
    done = run(["-m", "tb_nanwatch", "runs", "--json"], after_the_blocks)
    verdicts = {verdict["run"]: verdict for verdict in json.loads(done.stdout)["runs"]}
    assert verdicts["digits"]["status"] == "finite"
    assert verdicts["digits"]["steps_seen"] == 15
    assert (verdicts["accumulated"]["status"], verdicts["accumulated"]["steps_seen"]) == ("finite", 15)
    first = verdicts["recorded"]["first"]
    assert (first["step"], first["phase"], first["tensor"], first["kind"]) == (2, "forward", "root", "nan")
    assert (verdicts["suspect"]["first"]["op"]["type"], verdicts["suspect"]["first"]["samples"]) == ("Log", [1])
    assert done.returncode == 1


def test_every_file_that_readme_points_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands_of_the_makefile_are_those_of_readme():
    targets = set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
