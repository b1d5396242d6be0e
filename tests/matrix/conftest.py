"""Fixtures that read runs back, and that keep TensorFlow from regrouping operations."""

from __future__ import annotations

import pytest

from tests.watch.conftest import as_written, read

__all__ = ["as_written", "read"]


@pytest.fixture(autouse=True)
def every_program_as_written(as_written):
    """Keep TensorFlow's graph optimiser from regrouping arithmetic in every test."""
