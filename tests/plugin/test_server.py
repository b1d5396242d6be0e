"""TensorBoard's two loaders, started as a user starts them, give the same answer as the command."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tb_nanwatch.schema.records import Alert, Counts, Finding
from tests.event_files import RunWriter, only_at, steps_of
from tests.programs import ROOT, read_verdicts

HOSTILE = "<b>a\"b'c&é日[red]"
TIMEOUT_S = 60
# TensorBoard itself, with this plugin, and without TensorFlow, which would take seconds to import.
PROGRAM = """
import sys, types
from tensorboard import default, program
from tb_nanwatch.plugin.loader import NanWatchLoader
# TensorBoard looks for a module of this name, which its build adds where TensorFlow must not be used.
sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")
tensorboard = program.TensorBoard(plugins=[*default.get_static_plugins(), NanWatchLoader])
tensorboard.configure(argv=["tensorboard", *sys.argv[1:]])
tensorboard.main()
"""


def cut(data, _):
    return data[:-7]


def flipped(data, record):
    """Damage the length of the record at offset ``record``. Both loaders check the checksum of a length."""
    return data[:record] + bytes([data[record] ^ 1]) + data[record + 1 :]


def write_runs(logdir):
    losses = only_at(1, math.inf, first=0, last=1499)
    series = steps_of(0, 1499, loss=losses)
    writer = RunWriter(logdir / "long" / "nanwatch").header()
    for step in range(1500):
        writer.spans(series.rows(slice(step, step + 1)))
    finding = Finding("loss", "loss", Counts(size=64, nan=0, pos_inf=3, neg_inf=0))
    RunWriter(logdir / HOSTILE / "nanwatch").header().spans(steps_of(0, 9)).alert(
        Alert(9, 0, 0, "raised", (finding,), steps_of(0, 9))
    )
    RunWriter(logdir / "nanwatch").header().spans(steps_of(0, 4))
    for name, damage in (("cut", cut), ("flipped", flipped)):
        writer = RunWriter(logdir / name / "nanwatch").header().spans(steps_of(0, 9))
        whole = writer.path.stat().st_size
        path = writer.spans(steps_of(10, 19)).path
        path.write_bytes(damage(path.read_bytes(), whole))
    RunWriter(logdir / "other")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("logdir")
    write_runs(path)
    return path


class Server:
    """A running TensorBoard."""

    def __init__(self, *flags):
        command = [sys.executable, "-c", PROGRAM, "--port=0", "--host=127.0.0.1", *flags]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.log = []
        self.url = next(match[0] for match in map(self.find_url, self.process.stderr) if match).rstrip("/")
        # A full pipe would stop the server.
        self.reading = threading.Thread(target=self.log.extend, args=[self.process.stderr], daemon=True)
        self.reading.start()

    def find_url(self, line):
        self.log.append(line)
        return re.search(r"http://\S+", line)

    def get(self, path):
        with urllib.request.urlopen(f"{self.url}{path}", timeout=TIMEOUT_S) as response:
            return response.read().decode()

    def ask(self, route, **parameters):
        return json.loads(self.get(f"/data/plugin/nanwatch/{route}?{urllib.parse.urlencode(parameters)}"))

    def verdicts(self, *, expected):
        """Wait until the server has read all runs completely."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            found = {run["run"]: run for run in self.ask("verdicts")["runs"]}
            if {name: run["steps_seen"] for name, run in found.items()} == expected:
                return found
            time.sleep(0.1)
        pytest.fail(f"TensorBoard read {found}\n{''.join(self.log)}")

    def stop(self):
        self.process.terminate()
        self.process.wait(TIMEOUT_S)
        self.reading.join()
        self.process.stderr.close()


@pytest.fixture(scope="module", params=["true", "false"], ids=["rust", "python"])
def server(request, logdir):
    running = Server(f"--logdir={logdir}", f"--load_fast={request.param}", "--path_prefix=/below")
    yield running
    running.stop()


EXPECTED = {".": 5, "cut": 10, "flipped": 10, "long": 1500, HOSTILE: 10}


def test_the_page_and_the_command_give_the_same_verdicts(server, logdir):
    assert server.verdicts(expected=EXPECTED) == read_verdicts(logdir)


def test_the_page_and_the_command_read_a_damaged_file_up_to_the_damage(server, logdir):
    served, printed = server.verdicts(expected=EXPECTED), read_verdicts(logdir)
    for name in ("cut", "flipped"):
        assert served[name]["steps_seen"] == printed[name]["steps_seen"] == 10
        assert len(served[name]["unreadable"]) == len(printed[name]["unreadable"]) == 1


def test_every_step_is_returned_without_a_flag(server):
    server.verdicts(expected=EXPECTED)
    answer = server.ask("series", run="long", first=0, last=1499, points=2000)
    assert answer["first_step"] == list(range(1500))
    assert answer["curves"][0]["kinds"][:3] == [0, 8, 0]


def test_a_name_that_looks_like_markup_is_kept(server):
    server.verdicts(expected=EXPECTED)
    assert server.ask("verdicts", run=HOSTILE)["runs"][0]["first"]["step"] == 9
    assert server.ask("alert", run=HOSTILE, step=9)["run"] == HOSTILE
    assert server.ask("heatmap", run=HOSTILE)["run"] == HOSTILE


def test_the_plugin_is_listed_and_active_once_there_is_data(server):
    server.verdicts(expected=EXPECTED)
    plugins = json.loads(server.get("/data/plugins_listing"))
    entry = plugins["nanwatch"]
    assert (entry["enabled"], entry["tab_name"]) == (True, "NaN Watch")
    assert entry["loading_mechanism"]["module_path"].endswith("/data/plugin/nanwatch/index.js")


def test_routes_work_below_an_experiment(server):
    server.verdicts(expected=EXPECTED)
    answer = json.loads(server.get("/experiment/any/data/plugin/nanwatch/verdicts"))
    assert len(answer["runs"]) == 5


def test_an_error_response_is_a_sentence(server):
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.ask("series", run="missing")
    assert refused.value.code == 404
    assert refused.value.read().decode() == "Not found: the run must be one of those that `verdicts` lists."


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_an_empty_logdir_has_no_runs(load_fast, tmp_path):
    running = Server(f"--logdir={tmp_path}", f"--load_fast={load_fast}")
    try:
        assert running.ask("verdicts") == {"runs": [], "schema": 1}
        assert json.loads(running.get("/data/plugins_listing"))["nanwatch"]["enabled"] is False
    finally:
        running.stop()
