"""The replay: a bad step runs again while every operation reports, to name the one that made the first bad value."""

from tb_nanwatch.watch.replay.engine import Evidence, ReplayLimits
from tb_nanwatch.watch.replay.trial import current_trial

__all__ = ["Evidence", "ReplayLimits", "current_trial"]
