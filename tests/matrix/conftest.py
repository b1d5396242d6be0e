"""What reads runs back, and TensorFlow kept from regrouping what it computes."""

from __future__ import annotations

import pytest

from tests.watch.conftest import as_written, read

__all__ = ["as_written", "read"]


@pytest.fixture(autouse=True)
def each_as_written(as_written):
    """Take every program as it is written."""
