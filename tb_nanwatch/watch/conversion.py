"""AutoGraph: the user's Python is converted as ``tf.function`` would convert it, and the watch's own is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl import api as autograph


def converted(function: Callable[..., Any], *, is_converted: bool) -> Callable[..., Any]:
    """Return a Python function as ``tf.function`` would trace it: its control flow converted, unless told not to."""
    if not is_converted:
        return function
    on = ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED)
    result: Callable[..., Any] = autograph.tf_convert(function, on)
    return result
