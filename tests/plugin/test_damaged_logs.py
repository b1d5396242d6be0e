"""For 220 damaged logs, the command and the page with both of TensorBoard's loaders give the same answer."""

from __future__ import annotations

import json
import math
import random
import time

import pytest

from tb_nanwatch.schema.records import Alert, Counts, Finding
from tests.event_files import RunWriter, only_at, steps_of
from tests.plugin.test_server import TIMEOUT_S, Server
from tests.programs import run_python

MANY = 220
FINDING = Finding("loss", "loss", Counts(size=64, nan=0, pos_inf=3, neg_inf=0))


def write_log(directory, *, is_bad):
    """Write a header, ten chunks and, if the run is bad, an alert; return the path and the offset of each record."""
    writer = RunWriter(directory / "nanwatch")
    begins = [writer.path.stat().st_size]
    writer.header()
    for number in range(10):
        begins.append(writer.path.stat().st_size)
        first = number * 10
        loss = only_at(95, math.inf, first=first, last=first + 9) if is_bad and number == 9 else 1.0
        writer.spans(steps_of(first, first + 9, loss=loss))
    if is_bad:
        begins.append(writer.path.stat().st_size)
        writer.alert(Alert(95, 0, 0, "recorded", (FINDING,), steps_of(80, 95)))
    return writer.path, [*begins, writer.path.stat().st_size]


def flipped(data, begins, dice):
    at = dice.randrange(begins[0], len(data))
    data[at] ^= 1 << dice.randrange(8)
    return data


def cut(data, begins, dice):
    place = dice.randrange(len(begins) - 1)
    return data[: dice.randrange(begins[place] + 1, begins[place + 1])]


def zeroed(data, begins, dice):
    begin = dice.randrange(begins[0], len(data) - 20)
    size = dice.choice([16, 512, 4096])
    data[begin : begin + size] = bytes(min(size, len(data) - begin))
    return data


def swapped(data, begins, dice):
    place = dice.randrange(1, 9)
    begin, middle, end = begins[place : place + 3]
    data[begin:end] = data[middle:end] + data[begin:middle]
    return data


DAMAGES = (flipped, cut, zeroed, swapped)


def write_damaged_logs(logdir):
    for number in range(MANY):
        dice, damage = random.Random(number), DAMAGES[number % len(DAMAGES)]
        path, begins = write_log(logdir / f"{damage.__name__}-{number:03}", is_bad=number % 3 == 0)
        path.write_bytes(damage(bytearray(path.read_bytes()), begins, dice))
    write_log(logdir / "whole", is_bad=False)
    write_log(logdir / "whole-and-bad", is_bad=True)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("logdir")
    write_damaged_logs(path)
    return path


@pytest.fixture(scope="module")
def printed(logdir):
    done = run_python("-m", "tb_nanwatch", logdir, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    return {run["run"]: run for run in json.loads(done.stdout)["runs"]}


def test_every_damage_is_reported_and_no_damaged_run_is_finite(printed):
    assert len(printed) == MANY + 2
    for name, verdict in printed.items():
        if name.startswith("whole"):
            assert verdict["problems"] == []
        elif name.startswith("swapped"):
            assert (len(verdict["problems"]), verdict["unreadable"]) == (1, [])
        else:
            assert verdict["unreadable"], name
            assert verdict["status"] in {"incomplete", "nonfinite"}
            assert not verdict["text"].startswith("Finite")


def test_undamaged_records_are_not_lost(printed):
    swapped_runs = [verdict for name, verdict in printed.items() if name.startswith("swapped")]
    assert {verdict["steps_seen"] for verdict in swapped_runs} == {100}
    flips = [verdict["steps_seen"] for name, verdict in printed.items() if name.startswith("flipped")]
    assert min(flips) >= 90


@pytest.mark.parametrize("load_fast", ["true", "false"], ids=["rust", "python"])
def test_the_page_and_the_command_give_the_same_verdicts(load_fast, logdir, printed):
    server = Server(f"--logdir={logdir}", f"--load_fast={load_fast}")
    try:
        served, deadline = {}, time.monotonic() + TIMEOUT_S
        while served != printed and time.monotonic() < deadline:
            time.sleep(0.2)
            served = {run["run"]: run for run in server.ask("verdicts")["runs"]}
    finally:
        server.stop()
    assert {name: served.get(name) for name in printed if served.get(name) != printed[name]} == {}
    assert served.keys() == printed.keys()
