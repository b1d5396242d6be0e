"""Runs of the program of this folder in new processes, each with a time limit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

PROGRAM: Final = Path(__file__).with_name("program.py")
ROOT: Final = Path(__file__).parents[4]
TIME_LIMIT_S: Final = 110.0
Result = dict[str, Any]


def run_one(cases: Sequence[str], logdir: Path) -> list[Result]:
    """Run cases one after the other in one process, each with a log directory named after its place."""
    return _result_of(_started(cases, logdir, {}))


def run_two(cases: Sequence[str], logdir: Path) -> list[list[Result]]:
    """Run cases in two processes that train together; by process."""
    cluster = {"worker": [f"127.0.0.1:{_free_port()}" for _ in range(2)]}
    configurations = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
    with_strategy = [f"--strategy workers {case}" for case in cases]
    started = [
        _started(with_strategy, logdir, {"TF_CONFIG": json.dumps(configuration)}) for configuration in configurations
    ]
    try:
        return [_result_of(process) for process in started]
    finally:
        for process in started:
            process.kill()


def values(result: Result) -> np.ndarray:
    """Return every value of every variable on every replica."""
    return np.concatenate([np.concatenate(replica) for replica in result["weights"]])


def _started(cases: Sequence[str], logdir: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    with_logdir = [f"{case} --logdir {logdir / str(place)}" for place, case in enumerate(cases)]
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *with_logdir],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _result_of(process: subprocess.Popen[str]) -> list[Result]:
    try:
        out, errors = process.communicate(timeout=TIME_LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-4000:]
    return [json.loads(line.removeprefix("RESULT ")) for line in out.splitlines() if line.startswith("RESULT ")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
