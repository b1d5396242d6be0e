"""The diagnosis of a run: from its records to a verdict with the first bad step, the layer and likely causes.

The modules are pure: they read no file.
"""

from tb_nanwatch.diagnosis.origin import origin_of_alert
from tb_nanwatch.diagnosis.run_log import RunLog, SessionLog
from tb_nanwatch.diagnosis.sentences import origin_sentence
from tb_nanwatch.diagnosis.verdict import diagnose

__all__ = ["RunLog", "SessionLog", "diagnose", "origin_of_alert", "origin_sentence"]
