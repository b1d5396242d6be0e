"""The routes over real event files, served by TensorBoard's own application."""

from __future__ import annotations

import dataclasses
import json
import math
import urllib.parse

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend import application
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from tb_nanwatch.diagnosis import RunLog, SessionLog
from tb_nanwatch.plugin import plugin as plugin_module
from tb_nanwatch.plugin.alerts import alert_answer
from tb_nanwatch.plugin.plugin import NanWatchPlugin
from tb_nanwatch.plugin.requests import AlertRequest
from tb_nanwatch.schema.codec import dumps
from tb_nanwatch.schema.records import Alert, Counts, Finding
from tb_nanwatch.schema.stats import of_scope
from tests.event_files import HEADER, RunWriter, only_at, series_at, steps_of
from tests.replays import REPLAY, replayed

PREFIX = "/data/plugin/nanwatch"
CLIPPED = dataclasses.replace(HEADER, clip="scale", session=1)

OF_VARIABLES = tuple(stat.key for stat in of_scope("variable"))


def loss_alert(step, *, window, session=0, findings=()):
    bad_loss = Finding("loss", "loss", Counts(size=64, nan=0, pos_inf=3, neg_inf=0))
    return Alert(step, session, 0, "raised", (bad_loss, *findings), window)


def write_runs(logdir):
    losses = only_at(29, math.inf, first=0, last=29)
    grads = only_at(29, math.nan, first=0, last=29, width=4, column=2)
    series = steps_of(0, 29, loss=losses, grad_norm=grads)
    gradient = Finding("gradient", "l2/V", Counts(size=4, nan=4, pos_inf=0, neg_inf=0))
    alert = loss_alert(29, window=series, findings=(gradient,))
    RunWriter(logdir / "relu" / "nanwatch").header().spans(series).alert(alert)
    RunWriter(logdir / "tanh" / "nanwatch").header().spans(steps_of(0, 99))
    ratios = np.array([[1.0, 0.5, 0.25, 1.0]] * 50)
    RunWriter(logdir / "twice" / "nanwatch").header().spans(steps_of(0, 99)).header(CLIPPED).spans(
        steps_of(50, 99, header=CLIPPED, clip_ratio=ratios), session=1
    )
    weight = Finding("weight", "l1/b", Counts(size=4, nan=1, pos_inf=0, neg_inf=0))
    RunWriter(logdir / "update" / "nanwatch").header().spans(series_at([10, 20, 30])).alert(
        dataclasses.replace(loss_alert(30, window=series_at([10, 20, 30])), findings=(weight,))
    )
    RunWriter(logdir / "new" / "nanwatch").header()
    # A killed process writes only the first of these alerts. A process that replays the step writes both.
    RunWriter(logdir / "again" / "nanwatch").header().spans(series).alert(alert).alert(
        replayed(alert, batch="nanwatch/batches/step-29.npz"), number=1
    )


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("logdir")
    write_runs(logdir)
    multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
    multiplexer.AddRunsFromDirectory(str(logdir)).Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


def client_of(provider, *, path_prefix=""):
    plugin = NanWatchPlugin(TBContext(data_provider=provider))
    return Client(application.TensorBoardWSGI([plugin], path_prefix=path_prefix, data_provider=provider))


@pytest.fixture(scope="module")
def client(provider):
    return client_of(provider)


def ask(client, route, **parameters):
    response = client.get(f"{PREFIX}/{route}?{urllib.parse.urlencode(parameters)}")
    assert response.status_code == 200, response.text
    assert response.mimetype == "application/json"
    return json.loads(response.text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def error_response(client, query):
    response = client.get(f"{PREFIX}/{query}")
    assert response.mimetype == "text/plain"
    return response.status_code, response.text


def test_verdicts_cover_every_run(client):
    answer = ask(client, "verdicts")
    assert answer["schema"] == 1
    assert [(run["run"], run["status"], run["steps_seen"]) for run in answer["runs"]] == [
        ("again", "nonfinite", 30),
        ("new", "empty", 0),
        ("relu", "nonfinite", 30),
        ("tanh", "finite", 100),
        ("twice", "finite", 150),
        ("update", "nonfinite", 3),
    ]


def test_a_single_verdict_can_be_requested(client):
    (run,) = ask(client, "verdicts", run="relu")["runs"]
    assert run["text"] == "Step 29: +Inf first appeared in the loss (3 of 64 elements)."
    assert run["first"]["counts"] == {"size": 64, "nan": 0, "pos_inf": 3, "neg_inf": 0}


def test_a_series_has_statistics_of_the_step_the_clip_ratio_and_tensors(client):
    answer = ask(client, "series", run="relu")
    assert (answer["session"], answer["sessions"]) == (0, [0])
    assert answer["first_step"] == answer["last_step"] == list(range(30))
    names = ["loss", "global_norm", "clipped_global_norm", "clip_ratio"]
    assert [curve["name"] for curve in answer["curves"]] == names
    loss = answer["curves"][0]
    assert (loss["max"][28:], loss["kinds"][28:]) == ([1.0, None], [0, 8])
    assert answer["curves"][2]["min"] == []
    assert [curve["name"] for curve in answer["tensors"]] == ["values"]


def test_a_series_is_thinned_and_limited_to_a_range(client):
    answer = ask(client, "series", run="tanh", points=10)
    assert (answer["first_step"], answer["last_step"][-1]) == (list(range(0, 100, 10)), 99)
    assert {len(curve["mean"]) for curve in answer["curves"] + answer["tensors"]} == {10}
    answer = ask(client, "series", run="tanh", first=7, last=9)
    assert answer["first_step"] == [7, 8, 9]


def test_a_restarted_run_shows_the_requested_session(client):
    answer = ask(client, "series", run="twice")
    assert (answer["session"], answer["sessions"], answer["first_step"][0]) == (1, [0, 1], 50)
    answer = ask(client, "series", run="twice", session=0)
    assert (answer["session"], answer["first_step"][0]) == (0, 0)
    assert ask(client, "heatmap", run="twice", session=0)["session"] == 0


def test_the_ratio_of_a_step_is_the_smallest_of_its_variables(client):
    ratio = ask(client, "series", run="twice", session=1)["curves"][-1]
    assert (ratio["name"], set(ratio["min"]), ratio["max"]) == ("clip_ratio", {0.25}, [])


def test_a_heatmap_has_a_row_for_each_layer(client):
    answer = ask(client, "heatmap", run="relu", columns=3)
    assert answer["rows"] == [
        {"label": "l1", "layer": "l1", "variable": None},
        {"label": "l2", "layer": "l2", "variable": None},
    ]
    assert answer["first_step"] == [0, 10, 20]
    assert answer["values"] == [[1.41421] * 3] * 2
    assert answer["kinds"] == [[0, 0, 0], [0, 0, 1]]


def test_a_heatmap_has_a_row_for_each_variable(client):
    answer = ask(client, "heatmap", run="twice", by="variable", stat="clip_ratio", keeps="min", columns=1)
    assert [row["label"] for row in answer["rows"]] == ["l1/V", "l1/b", "l2/V", "l2/b"]
    assert answer["values"] == [[1.0], [0.5], [0.25], [1.0]]


def test_an_unrecorded_statistic_has_no_rows(client):
    answer = ask(client, "heatmap", run="new")
    assert (answer["rows"], answer["values"], answer["first_step"]) == ([], [], [])


def test_an_alert_shows_the_last_sixteen_single_steps(client):
    answer = ask(client, "alert", run="relu", step=29)
    assert (answer["step"], answer["action"], answer["steps"]) == (29, "raised", list(range(14, 30)))
    assert answer["loss"][-2:] == [1.0, None]
    assert [(row["role"], row["name"], row["layer"]) for row in answer["findings"]] == [
        ("loss", "loss", None),
        ("gradient", "l2/V", "l2"),
    ]
    (row,) = [row for row in answer["variables"] if row["name"] == "l2/V"]
    assert (row["grad_norm"][-2:], row["clipped_norm"][-2:], row["kinds"][-2:]) == ([1.0, None], [1.0, None], [0, 1])
    assert row["weight_norm"][-1] == 1.0


def test_an_alert_is_found_by_the_step_of_its_verdict(client):
    (run,) = ask(client, "verdicts", run="update")["runs"]
    assert (run["first"]["step"], run["first"]["phase"]) == (20, "update")
    assert ask(client, "alert", run="update", step=20)["step"] == 30
    assert ask(client, "alert", run="update", step=30)["step"] == 30


def test_a_replayed_alert_has_its_window_and_its_replay(client):
    answer = ask(client, "alert", run="again", step=29)
    assert answer["steps"] == list(range(14, 30))
    assert len(answer["findings"]) == 2
    assert answer["replay"] == json.loads(dumps(REPLAY))
    assert answer["batch"] == "again/nanwatch/batches/step-29.npz"
    first_only = ask(client, "alert", run="relu", step=29)
    assert (first_only["replay"], first_only["batch"]) == (None, None)


def test_a_verdict_by_replay_names_operation_line_and_batch(client):
    (run,) = ask(client, "verdicts", run="again")["runs"]
    assert run["text"].startswith("Step 29: +Inf first appeared in the output of Square (critic.py:41, in train_step)")
    assert (run["first"]["evidence"], run["first"]["batch"]) == ("replay", "again/nanwatch/batches/step-29.npz")
    assert [link["op"]["type"] for link in run["chain"]] == ["Square", "Mean", "MatMul"]
    assert [cause["id"] for cause in run["causes"]] == ["square-overflow"]


@pytest.mark.parametrize(("run", "path"), [("again", "again/nanwatch/batches/step-29.npz"), ("relu", None)])
def test_the_path_of_a_batch_can_be_requested(client, run, path):
    answer = ask(client, "batch", run=run, step=29)
    assert answer == {"run": run, "step": 29, "saved": path is not None, "batch": path}


def test_two_alerts_at_a_step_share_their_window_and_replay():
    window = steps_of(0, 9)
    weight = Finding("weight", "l1/b", Counts(size=4, nan=1, pos_inf=0, neg_inf=0))
    second = dataclasses.replace(replayed(loss_alert(9, window=window)), findings=(weight,))
    for alerts in ((second, loss_alert(9, window=window)), (loss_alert(9, window=window), second)):
        log = RunLog("run", (SessionLog(HEADER, window, alerts),))
        answer = alert_answer(log, AlertRequest("run", 9))
        assert (answer.steps, answer.replay, len(answer.findings)) == (tuple(range(10)), REPLAY, 2)


@pytest.mark.parametrize(
    ("query", "code", "sentence"),
    [
        ("series", 400, "Invalid argument: run must be given."),
        ("series?run=missing", 404, "Not found: the run must be one of those that `verdicts` lists."),
        ("verdicts?run=missing", 404, "Not found: the run must be one of those that `verdicts` lists."),
        ("verdicts?runs=relu", 400, "Invalid argument: parameters must be among run; got 'runs'."),
        ("verdicts?run=a&run=b", 400, "Invalid argument: run must be given once; got it more than once."),
        ("series?run=relu&points=0", 400, "Invalid argument: points must be a whole number from 1 to 2000; got '0'."),
        (
            "series?run=relu&points=2001",
            400,
            "Invalid argument: points must be a whole number from 1 to 2000; got '2001'.",
        ),
        ("series?run=relu&first=-1", 400, "Invalid argument: first must be a whole number from 0 on; got '-1'."),
        (
            "series?run=relu&first=%D9%A3",
            400,
            "Invalid argument: first must be a whole number from 0 on; got '\\u0663'.",
        ),
        ("series?run=relu&first=9&last=3", 400, "Invalid argument: first must not be after last; got 9 and 3."),
        ("series?run=relu&session=7", 404, "Not found: the run must have a session 7, and has not."),
        ("heatmap?run=relu&by=row", 400, "Invalid argument: by must be one of layer, variable; got 'row'."),
        (
            "heatmap?run=relu&stat=loss",
            400,
            f"Invalid argument: stat must be one of {', '.join(OF_VARIABLES)}; got 'loss'.",
        ),
        (
            "heatmap?run=relu&stat=weight_norm&keeps=mean",
            400,
            "Invalid argument: keeps must be one of max of weight_norm; got mean.",
        ),
        ("alert?run=relu", 400, "Invalid argument: step must be given."),
        ("alert?run=relu&step=3", 404, "Not found: the run must have an alert at step 3, and has not."),
        ("batch?run=again", 400, "Invalid argument: step must be given."),
        ("batch?run=missing&step=29", 404, "Not found: the run must be one of those that `verdicts` lists."),
        ("batch?run=again&step=3", 404, "Not found: the run must have an alert at step 3, and has not."),
        (
            "batch?run=again&step=29&path=/etc/passwd",
            400,
            "Invalid argument: parameters must be among run, step, session; got 'path'.",
        ),
        ("alert?run=tanh&step=29", 404, "Not found: the run must have an alert at step 29, and has not."),
    ],
)
def test_an_invalid_request_is_answered_with_a_sentence(client, query, code, sentence):
    assert error_response(client, query) == (code, sentence)


@pytest.mark.parametrize("route", ["verdicts", "series", "heatmap", "alert", "batch", "index.js"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_reading_is_allowed(client, route, method):
    response = client.open(f"{PREFIX}/{route}", method=method)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


def test_a_head_has_no_body(client):
    response = client.head(f"{PREFIX}/verdicts")
    assert (response.status_code, response.data) == (200, b"")
    assert int(response.headers["Content-Length"]) > 0


def test_the_page_is_served_as_a_module(client, monkeypatch, tmp_path):
    monkeypatch.setattr(plugin_module, "_STATIC", tmp_path)
    assert error_response(client, "index.js") == (
        404,
        "Not found: the page was not built; run `npm --prefix frontend run build`, or install the package again.",
    )
    (tmp_path / "index.js").write_text("export function render() {}", encoding="utf-8")
    response = client.get(f"{PREFIX}/index.js")
    assert (response.mimetype, response.text) == ("text/javascript", "export function render() {}")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["licenses.txt", "../plugin.py", "index.js/..", "%2e%2e/loader.py", ""])
def test_no_other_file_is_served(client, path):
    assert client.get(f"{PREFIX}/{path}").status_code == 404


def test_the_tab_has_a_name_and_a_module(provider):
    plugin = NanWatchPlugin(TBContext(data_provider=provider))
    metadata = plugin.frontend_metadata()
    assert (plugin.plugin_name, metadata.tab_name, metadata.es_module_path) == ("nanwatch", "NaN Watch", "/index.js")
    assert metadata.es_module_path in plugin.get_plugin_apps()
    assert plugin.is_active() is False


def test_routes_work_below_an_experiment_and_a_prefix(provider):
    client = client_of(provider, path_prefix="/tb")
    for path in (f"/tb{PREFIX}/verdicts", f"/tb/experiment/some_id{PREFIX}/verdicts"):
        response = client.get(path)
        assert (response.status_code, len(response.json["runs"])) == (200, 6)


class RecordingProvider(MultiplexerDataProvider):
    """A provider that records the requested experiment."""

    def list_tensors(self, *args, experiment_id, **kwargs):
        self.asked = experiment_id
        return super().list_tensors(*args, experiment_id=experiment_id, **kwargs)


def test_the_experiment_comes_from_the_url():
    provider = RecordingProvider(EventMultiplexer(), "logdir")
    client_of(provider).get(f"/experiment/some_id{PREFIX}/verdicts")
    assert provider.asked == "some_id"


class DeadProvider(MultiplexerDataProvider):
    """A provider that cannot reach its server."""

    def list_tensors(self, *args, **kwargs):
        raise ConnectionError("tcp 10.0.0.1:1234 refused")


def test_a_provider_that_does_not_answer_gives_status_503(provider):
    client = client_of(DeadProvider(EventMultiplexer(), "logdir"))
    sentence = "Unavailable: the data provider did not answer (ConnectionError); ask again."
    assert error_response(client, "verdicts") == (503, sentence)


HOSTILE = ["<script>alert(1)</script>", "a\"b'c", "new\nline", "日本語 ünï", "x" * 10_000, "[red]", "\x00\x1b[2J"]


def test_hostile_names_are_passed_unchanged(tmp_path):
    variables = tuple(
        dataclasses.replace(HEADER.variables[0], name=name, layer=name, backward_order=None) for name in HOSTILE
    )
    header = dataclasses.replace(HEADER, variables=variables, tensors=tuple(HOSTILE))
    series = steps_of(0, 3, header=header)
    finding = Finding("gradient", HOSTILE[0], Counts(size=2, nan=1, pos_inf=0, neg_inf=0))
    alert = dataclasses.replace(loss_alert(3, window=series), findings=(finding,))
    name = HOSTILE[0].replace("/", "_")
    RunWriter(tmp_path / name / "nanwatch").header(header).spans(series).alert(alert)
    multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
    multiplexer.AddRunsFromDirectory(str(tmp_path)).Reload()
    client = client_of(MultiplexerDataProvider(multiplexer, str(tmp_path)))
    (run,) = ask(client, "verdicts")["runs"]
    assert (run["run"], run["first"]["variable"]) == (name, HOSTILE[0])
    assert [row["label"] for row in ask(client, "heatmap", run=name)["rows"]] == HOSTILE
    assert [curve["name"] for curve in ask(client, "series", run=name)["tensors"]] == HOSTILE
    assert [row["name"] for row in ask(client, "alert", run=name, step=3)["variables"]] == HOSTILE


def test_a_directory_name_outside_utf8_is_encoded(tmp_path):
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 3))
    multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
    multiplexer.AddRun(str(tmp_path / "nanwatch"), f"{name}/nanwatch").Reload()
    client = client_of(MultiplexerDataProvider(multiplexer, str(tmp_path)))
    assert ask(client, "verdicts")["runs"][0]["run"] == name


words = st.text(max_size=20) | st.sampled_from(
    [
        "again",
        "relu",
        "twice",
        "new",
        "0",
        "1",
        "29",
        "600",
        "-1",
        "layer",
        "variable",
        "grad_norm",
        "min",
        "max",
        "mean",
        "1e3",
        "９",
    ]
)
names = st.sampled_from(
    ["run", "session", "first", "last", "points", "columns", "by", "stat", "keeps", "step", "extra"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    route=st.sampled_from(["verdicts", "series", "heatmap", "alert", "batch"]),
    parameters=st.lists(st.tuples(names, words), max_size=6),
    garbage=st.binary(max_size=8),
)
def test_an_arbitrary_query_never_makes_a_route_fail(client, route, parameters, garbage):
    encoded = [(name, value.encode("utf-8", "surrogatepass")) for name, value in parameters]
    query = urllib.parse.urlencode(encoded) + "&" * bool(garbage) + urllib.parse.quote_from_bytes(garbage, safe="=&%+")
    response = client.get(f"{PREFIX}/{route}", query_string=query)
    assert response.status_code in {200, 400, 404}, response.text
    if response.status_code != 200:
        assert response.text.endswith(".")
