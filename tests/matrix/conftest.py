"""What reads runs back."""

from tests.watch.conftest import read

__all__ = ["read"]
