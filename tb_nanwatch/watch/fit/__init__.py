"""Watching ``model.fit``."""

from tb_nanwatch.watch.fit.callback import NanWatchCallback

__all__ = ["NanWatchCallback"]
