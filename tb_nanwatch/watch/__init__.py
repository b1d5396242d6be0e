"""The training side: what watches, alone allowed TensorFlow."""

from tb_nanwatch.watch.watch import Watch

__all__ = ["Watch"]
