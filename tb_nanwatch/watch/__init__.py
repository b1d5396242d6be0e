"""The training side: what watches, alone allowed TensorFlow."""

from tb_nanwatch.watch.api import Watch
from tb_nanwatch.watch.drivers.session_v1.hook import NanWatchHook
from tb_nanwatch.watch.record.archive import Batch, load_batch

__all__ = ["Batch", "NanWatchHook", "Watch", "load_batch"]
