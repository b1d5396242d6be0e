"""Graphs and sessions of TensorFlow 1: the same watch, for a step that is built once and run by a session.

Nothing orders the operations of such a graph but what is written down, and whoever calls ``session.run`` sees what he
fetches: so a row is fetched with the step that left it, and nothing is kept on the device.
"""

from tb_nanwatch.watch.tf1.graph import is_session_graph
from tb_nanwatch.watch.tf1.hook import NanWatchHook
from tb_nanwatch.watch.tf1.runs import SessionRuns

__all__ = ["NanWatchHook", "SessionRuns", "is_session_graph"]
