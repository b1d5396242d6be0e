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


def test_a_role_belongs_to_one_statistic():
    roles = [stat.role for stat in STATS if stat.role is not None]
    assert len(set(roles)) == len(roles)


def test_a_statistic_keeps_no_merge_that_its_unclipped_twin_lacks():
    pairs = [(stat, BY_KEY[stat.unclipped]) for stat in STATS if stat.unclipped is not None]
    assert [stat.key for stat, _ in pairs] == ["clipped_norm", "clipped_global_norm"]
    for stat, twin in pairs:
        assert stat.scope == twin.scope
        assert set(stat.merges) <= set(twin.merges)


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
