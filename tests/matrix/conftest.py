"""Fixtures that read runs back, and keep TensorFlow from regrouping its computations."""

from __future__ import annotations

import pytest

from tests.watch.conftest import as_written, read

__all__ = ["as_written", "read"]


@pytest.fixture(autouse=True)
def each_as_written(as_written):
    """Turn off TensorFlow's graph optimiser, so that it computes every program as written."""
