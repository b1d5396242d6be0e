"""Programs that tests run as a user runs them: each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 240


def run_python(*arguments: object, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python with the package of this tree, or of a copy at ``root``, and return the finished process."""
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    # "python -m" searches the working directory first.
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def run_demo(name: str, logdir: Path, *flags: object) -> str:
    """Run a demo, and return what it prints."""
    program = run_python(ROOT / "demo" / f"{name}.py", "--logdir", logdir, *flags)
    assert program.returncode == 0, program.stderr
    return program.stdout


def read_verdicts(logdir: Path, *options: str, root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return the verdicts that ``nanwatch LOGDIR --json`` prints, by run; ``root`` as for :func:`run_python`."""
    answer = run_python("-m", "tb_nanwatch", logdir, "--json", *options, root=root)
    return {verdict["run"]: verdict for verdict in json.loads(answer.stdout)["runs"]}
