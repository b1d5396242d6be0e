"""Settings of every test."""

from __future__ import annotations

import os

from hypothesis import settings

# TensorFlow reads this once, on its import. Its start-up notes would hide the output of a failing test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Time limits mean nothing on cores shared with TensorFlow; a failure must repeat when the suite runs again.
settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("suite")
