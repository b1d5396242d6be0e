"""Find the first step, layer and operation where TensorFlow training became NaN or Inf.

- :class:`Watch` watches a custom training loop.
- :class:`NanWatchCallback` watches ``model.fit``.
- :class:`NanWatchHook` watches a ``MonitoredSession`` of TensorFlow 1.
- :class:`NonFiniteError` carries the verdict of a bad step.
- :func:`load_batch` loads the saved arguments of a bad step, a :class:`Batch`.

The command ``nanwatch LOGDIR`` and the NaN Watch tab of TensorBoard show the verdicts.

Names are loaded on first use, so ``import tb_nanwatch`` needs neither TensorFlow nor TensorBoard.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tb_nanwatch.errors import NonFiniteError
    from tb_nanwatch.watch import Batch, NanWatchHook, Watch, load_batch
    from tb_nanwatch.watch.drivers.keras.callback import NanWatchCallback

__version__ = "0.1.0"
__all__ = ["Batch", "NanWatchCallback", "NanWatchHook", "NonFiniteError", "Watch", "__version__", "load_batch"]

_HOME = {
    "Batch": "tb_nanwatch.watch",
    "NanWatchCallback": "tb_nanwatch.watch.drivers.keras.callback",
    "NanWatchHook": "tb_nanwatch.watch",
    "NonFiniteError": "tb_nanwatch.errors",
    "Watch": "tb_nanwatch.watch",
    "load_batch": "tb_nanwatch.watch",
}


def __getattr__(name: str) -> object:
    """Import a public name on its first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
