"""From what was recorded to the verdict: which step and layer were first, and why. No file is read here."""

from tb_nanwatch.diagnosis.origin import origin_of_alert
from tb_nanwatch.diagnosis.run_log import RunLog, SessionLog
from tb_nanwatch.diagnosis.sentences import origin_sentence
from tb_nanwatch.diagnosis.verdict import diagnose

__all__ = ["RunLog", "SessionLog", "diagnose", "origin_of_alert", "origin_sentence"]
