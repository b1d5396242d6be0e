"""The catalogue of statistics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tb_nanwatch.schema.stats import BY_KEY, STATS, of_scope

ROOT = Path(__file__).parent.parent.parent


def test_keys_are_unique_and_every_statistic_has_one_scope():
    assert len(BY_KEY) == len(STATS)
    scopes = [of_scope(scope) for scope in ("variable", "step", "tensor")]
    assert sorted(stat.key for scope in scopes for stat in scope) == sorted(BY_KEY)


@pytest.mark.parametrize("generator", ["frontend/generate_protocol.py", "docs/generate.py"])
def test_generated_files_are_up_to_date(generator):
    done = subprocess.run(
        [sys.executable, str(ROOT / generator), "--check"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
