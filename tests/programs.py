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


def run_python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python with this tree's package, and return the finished process."""
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def run_demo(name: str, logdir: Path, *flags: object) -> str:
    """Run a demo, and return what it prints."""
    program = run_python(ROOT / "demo" / f"{name}.py", "--logdir", logdir, *flags)
    assert program.returncode == 0, program.stderr
    return program.stdout


def read_verdicts(logdir: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts that ``nanwatch LOGDIR --json`` prints, by run."""
    answer = run_python("-m", "tb_nanwatch", logdir, "--json", *options)
    return {verdict["run"]: verdict for verdict in json.loads(answer.stdout)["runs"]}
