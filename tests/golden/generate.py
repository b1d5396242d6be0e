"""Write the goldens: the answers of the routes for a small logdir. Both pytest and the tests of the page read them.

Run ``python -m tests.golden.generate`` when an answer changes on purpose.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from tests.plugin.test_plugin import ask, client_of, write_runs

HERE = Path(__file__).parent
QUESTIONS = {
    "verdicts": ("verdicts", {}),
    "series": ("series", {"run": "relu", "points": 10}),
    "heatmap": ("heatmap", {"run": "relu", "by": "variable", "columns": 10}),
    "alert": ("alert", {"run": "relu", "step": 29}),
    "replay": ("alert", {"run": "again", "step": 29}),
    "batch": ("batch", {"run": "again", "step": 29}),
}


def answers() -> dict[str, str]:
    """Return the text of each golden, by name."""
    with tempfile.TemporaryDirectory() as logdir:
        write_runs(Path(logdir))
        multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
        multiplexer.AddRunsFromDirectory(logdir).Reload()
        client = client_of(MultiplexerDataProvider(multiplexer, logdir))
        golden_answers = {name: ask(client, route, **parameters) for name, (route, parameters) in QUESTIONS.items()}
    return {name: json.dumps(answer, indent=1) + "\n" for name, answer in golden_answers.items()}


if __name__ == "__main__":
    for name, text in answers().items():
        (HERE / f"{name}.json").write_text(text, encoding="utf-8")
