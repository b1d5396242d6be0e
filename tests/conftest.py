"""What every test runs under."""

from __future__ import annotations

import os

from hypothesis import settings

# TensorFlow reads this once, when it is imported: its start-up notes would bury a failing test's own output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Cores shared with TensorFlow promise nothing about time; a failure must come back when the suite runs again.
settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("suite")
