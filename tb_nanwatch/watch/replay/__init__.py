"""Running a bad step again with every operation looked at, to name the one where the first bad value arose."""

from tb_nanwatch.watch.replay.again import Evidence, ReplayLimits, replay
from tb_nanwatch.watch.replay.trial import current_trial

__all__ = ["Evidence", "ReplayLimits", "current_trial", "replay"]
