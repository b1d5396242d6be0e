"""Every route answers for any log, and a valid run next to it is unaffected."""

from __future__ import annotations

import itertools
import shutil
import urllib.parse

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from tb_nanwatch.schema import nanwatch_pb2 as pb
from tb_nanwatch.schema import wire
from tb_nanwatch.schema.records import Alert, Counts, Finding
from tests.event_files import HEADER, RunWriter, steps_of
from tests.plugin.test_plugin import PREFIX, client_of
from tests.replays import REPLAY

ALERT = Alert(29, 0, 0, "raised", (Finding("loss", "loss", Counts(64, 1, 2, 3)),), steps_of(20, 29), replay=REPLAY)
MESSAGES = {
    "header": (pb.Header, wire.encode_header(HEADER)),
    "spans/0": (pb.SpanChunk, wire.encode_series(steps_of(0, 29, loss=float("nan")))),
    "alerts/29-0": (pb.Alert, wire.encode_alert(ALERT)),
}
WHOLE_NUMBERS = st.sampled_from([0, 1, 2, 29, 30, 2**31 - 1, 2**31, 2**32 - 1, 2**50, 2**53, 2**63 - 1, 2**64 - 1])
NUMBERS = WHOLE_NUMBERS | WHOLE_NUMBERS.map(lambda number: -number) | st.just(-(2**63))
TEXTS = st.sampled_from(
    ["", "loss", "grad_norm", "count", "kinds", "max", "l1/V", "\0", "<b>", "é" * 500, "found", "nan"]
)
ROUTES = ("series", "heatmap", "alert", "batch")
_LIMITS = {
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "sint32": (-(2**31), 2**31 - 1),
}
_TYPES = {13: "uint32", 4: "uint64", 3: "int64", 17: "sint32", 14: "enum"}


def leaves_of(message):
    """Yield each pair of message and field that holds a value, at any depth."""
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            yield message, field
        else:
            for inner in value if field.is_repeated else [value]:
                yield from leaves_of(inner)
                yield message, field


def change(draw, message):
    """Change one field to a value that no watch writes."""
    leaves = list(leaves_of(message))
    if not leaves:
        return
    holder, field = draw(st.sampled_from(leaves))
    if field.message_type is not None or (draw(st.booleans()) and draw(st.booleans())):
        holder.ClearField(field.name)
        return
    value = _value(draw, field)
    if not field.is_repeated:
        setattr(holder, field.name, value)
        return
    values = getattr(holder, field.name)
    place = draw(st.integers(0, len(values)))
    if place < len(values):
        values[place] = value
    else:
        values.append(value)


def _value(draw, field):
    if field.type == field.TYPE_STRING:
        return draw(TEXTS)
    if field.type == field.TYPE_BYTES:
        return draw(st.binary(max_size=16))
    if field.type == field.TYPE_DOUBLE:
        return draw(st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e308]))
    if field.type == field.TYPE_ENUM:
        return draw(st.integers(0, 9))
    least, most = _LIMITS[_TYPES[field.type]]
    return min(max(draw(NUMBERS), least), most)


@st.composite
def hostile_logs(draw):
    """Return the messages of a valid log by tag, with up to four changed fields in one or two messages."""
    log = {}
    chosen = draw(st.sets(st.sampled_from(sorted(MESSAGES)), min_size=1, max_size=2))
    for tag, (kind, data) in MESSAGES.items():
        message = kind.FromString(data)
        for _ in range(draw(st.integers(1, 4)) if tag in chosen else 0):
            change(draw, message)
        log[f"nanwatch/{draw(st.sampled_from([0, 0, 0, 1, 999_999_999]))}/{tag}"] = message.SerializeToString()
    return log


def client_for(logdir):
    multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
    multiplexer.AddRunsFromDirectory(str(logdir)).Reload()
    return client_of(MultiplexerDataProvider(multiplexer, str(logdir)))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=hostile_logs(), step=NUMBERS)
def test_every_route_answers_for_a_hostile_log(log, step, tmp_path_factory):
    logdir = tmp_path_factory.mktemp("logdir")
    RunWriter(logdir / "whole" / "nanwatch").header().spans(steps_of(0, 9))
    writer = RunWriter(logdir / "hostile" / "nanwatch")
    for tag, data in log.items():
        writer.message(tag, data, step=step if -(2**63) <= step < 2**63 else 0)
    client = client_for(logdir)
    with np.errstate(all="ignore"):
        answers = client.get(f"{PREFIX}/verdicts")
        assert answers.status_code == 200, answers.text
        verdicts = {verdict["run"]: verdict for verdict in answers.json["runs"]}
        assert verdicts["whole"]["text"] == "Finite in all 10 steps."
        # Two of its messages report NaN.
        assert verdicts["hostile"]["status"] in {"nonfinite", "incomplete"}
        steps = [29, *(verdict["first"]["step"] for verdict in verdicts.values() if verdict["first"])]
        for route, at in itertools.product(ROUTES, steps):
            asked = {"run": "hostile"} | ({"step": at} if route in {"alert", "batch"} else {})
            answer = client.get(f"{PREFIX}/{route}?{urllib.parse.urlencode(asked)}")
            assert answer.status_code in {200, 404}, answer.text
    shutil.rmtree(logdir)
