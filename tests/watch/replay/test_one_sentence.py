"""The error, the page and the command say the same of a bad step."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import pytest
from tensorboard.backend import application
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from tb_nanwatch import NonFiniteError
from tb_nanwatch.cli import main
from tb_nanwatch.plugin.plugin import NanWatchPlugin
from tests.watch.replay.case import Case
from tests.watch.replay.catalogue import CASES

NAMES = frozenset(
    {
        "normalization_adapted_to_a_missing_value",
        "normalization_adapted_to_a_missing_value_in_fit",
        "batch_that_the_step_makes_a_constant_of",
        "nan_in_class_weights_that_multiply_a_loss",
        "argument_that_is_mostly_masked",
        "value_of_a_sparse_argument_in_row_three",
        "bad_loss_before_another_update",
        "bad_gradient_before_another_update",
        "first_update_that_overflows_before_the_second",
        "untrained_variable_that_is_nan_before_a_maximum",
        "weights_that_were_inf_before_training",
    }
)
"""One of each kind: what enters a step, what an update makes, what was bad before, what is sampled."""


def said_by_the_page(logdir: Path) -> dict[str, object]:
    multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
    multiplexer.AddRunsFromDirectory(str(logdir)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    plugin = NanWatchPlugin(TBContext(data_provider=provider))
    client = Client(application.TensorBoardWSGI([plugin], data_provider=provider))
    (run,) = client.get("/data/plugin/nanwatch/verdicts").json["runs"]
    return run


@pytest.mark.parametrize("case", [case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
def test_the_error_the_page_and_the_command_say_the_same(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.backend.clear_session()
    with pytest.raises(NonFiniteError) as caught:
        case.run(str(tmp_path))
    verdict = caught.value.verdict
    assert str(caught.value).startswith(verdict.text)
    assert main([str(tmp_path), "--json"]) == 1
    (by_command,) = json.loads(capsys.readouterr().out)["runs"]
    by_page = said_by_the_page(tmp_path)
    assert [by_command["text"], by_page["text"]] == [verdict.text] * 2
    causes = [[cause.text, cause.fix] for cause in verdict.causes]
    for run in (by_command, by_page):
        assert [[cause["text"], cause["fix"]] for cause in run["causes"]] == causes


def test_every_name_is_of_a_case() -> None:
    assert {case.name for case in CASES} >= NAMES
