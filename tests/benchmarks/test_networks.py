"""The benchmark's networks have the stated size, and can be watched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tb_nanwatch
from benchmarks.networks import BUILDERS
from benchmarks.steps import watched_step


@pytest.mark.parametrize(
    ("name", "variables", "parameters"), [("critic", 15, 13_058), ("MNIST", 6, 235_146), ("AlphaZero", 45, 390_791)]
)
def test_a_network_of_the_stated_size_takes_one_watched_step(
    name: str, variables: int, parameters: int, tmp_path: Path
) -> None:
    network = BUILDERS[name]()
    with tb_nanwatch.Watch(tmp_path, network.variables) as watch:
        loss = watched_step(network, watch)()
    sizes = [int(np.prod(variable.shape)) for variable in network.variables]
    assert (len(sizes), sum(sizes), bool(np.isfinite(loss))) == (variables, parameters, True)
