"""The training side: what watches, alone allowed TensorFlow."""

from tb_nanwatch.watch.archive import Batch, load_batch
from tb_nanwatch.watch.tf1 import NanWatchHook
from tb_nanwatch.watch.watch import Watch

__all__ = ["Batch", "NanWatchHook", "Watch", "load_batch"]
