"""The training side: what watches, alone allowed TensorFlow."""

from tb_nanwatch.watch.archive import Batch, load_batch
from tb_nanwatch.watch.watch import Watch

__all__ = ["Batch", "Watch", "load_batch"]
