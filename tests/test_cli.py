"""``nanwatch LOGDIR``: its output and its exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

import tb_nanwatch
from tb_nanwatch.cli import main
from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir
from tb_nanwatch.schema import nanwatch_pb2, wire
from tb_nanwatch.schema.codec import dumps
from tb_nanwatch.schema.records import Alert, Counts, Finding
from tests.event_files import HEADER, RunWriter, steps_of
from tests.plugin.test_plugin import write_runs
from tests.programs import ROOT, run_python

COMMAND = [sys.executable, "-m", "tb_nanwatch"]


def nanwatch(*arguments, **environment):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def write_finite(logdir, run="tanh"):
    RunWriter(logdir / run / "nanwatch").header().spans(steps_of(0, 1999))


def write_bad(logdir, run="relu", *, steps=30):
    norms = [1.0] * (steps - 8) + [1e5] * 8
    series = steps_of(0, steps - 1, global_norm=norms)
    finding = Finding("loss", "loss", Counts(size=64, nan=0, pos_inf=3, neg_inf=0))
    alert = Alert(steps - 1, 0, 0, "raised", (finding,), series)
    RunWriter(logdir / run / "nanwatch").header().spans(series).alert(alert)


def test_a_finite_run_takes_one_sentence(tmp_path):
    write_finite(tmp_path)
    done = nanwatch(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "tanh  finite  2,000 steps\n  Finite in all 2,000 steps.\n",
        "",
    )


def test_a_bad_run_is_reported_with_its_cause(tmp_path):
    write_bad(tmp_path)
    write_finite(tmp_path)
    done = nanwatch(tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "relu  nonfinite  30 steps\n"
        "  Step 29: +Inf first appeared in the loss (3 of 64 elements).\n"
        "  Likely cause (high confidence): The gradients exploded first: their global norm, 1 in the median until "
        "step 22, rose to 1e+05 by step 28.\n"
        "  What to do: Lower the learning rate, clip the gradients by their global norm, or warm the learning rate "
        "up.\n"
        "  Before that: The gradients explode from step 22 on: their global norm rose from 1, the median until "
        "then, to 1e+05.\n"
        "\n"
        "tanh  finite  2,000 steps\n"
        "  Finite in all 2,000 steps.\n"
    )


def test_a_replayed_run_is_reported_with_its_evidence(tmp_path):
    write_runs(tmp_path)
    lines = nanwatch(tmp_path, "--run", "again").stdout.splitlines()
    assert "    > 41 |     loss = tf.reduce_mean(tf.square(returns - value))" in lines
    path = tmp_path / "again" / "nanwatch" / "batches" / "step-29.npz"
    assert lines[-1] == f'  Its batch: tb_nanwatch.load_batch("{path}")'


def test_the_directory_of_a_run_itself_leads_to_its_batch(tmp_path):
    write_runs(tmp_path)
    path = tmp_path / "again" / "nanwatch" / "batches" / "step-29.npz"
    for logdir in (tmp_path / "again", tmp_path / "again" / "nanwatch"):
        assert nanwatch(logdir).stdout.splitlines()[-1] == f'  Its batch: tb_nanwatch.load_batch("{path}")'


def test_a_warning_is_no_failure(tmp_path):
    norms = [1.0] * 22 + [1e5] * 8
    RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 29, global_norm=norms))
    done = nanwatch(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(".  warning  30 steps\n  Finite in all 30 steps. The gradients explode")


def test_json_is_the_answer_that_the_page_gets(tmp_path):
    write_bad(tmp_path)
    write_finite(tmp_path)
    done = nanwatch(tmp_path, "--json")
    reader = open_logdir(str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == dumps(reader.verdicts(reader.index(THE_LOGDIR)), indent=2) + "\n"
    (first, second) = json.loads(done.stdout, parse_constant=pytest.fail)["runs"]
    assert (first["first"]["phase"], second["first"]) == ("loss", None)


def test_the_status_is_that_of_one_run_if_it_is_requested(tmp_path):
    write_bad(tmp_path)
    write_finite(tmp_path)
    assert nanwatch(tmp_path, "--run", "tanh").returncode == 0
    done = nanwatch(tmp_path, "--run", "relu", "--json")
    assert (done.returncode, [run["run"] for run in json.loads(done.stdout)["runs"]]) == (1, ["relu"])


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_missing_run_is_named_with_the_runs_that_exist(tmp_path, options):
    write_bad(tmp_path)
    write_finite(tmp_path)
    done = nanwatch(tmp_path, "--run", "elu", *options)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "nanwatch: --run must name one of relu, tanh; got elu.\n",
    )


def test_a_logdir_without_a_watched_run_is_an_error(tmp_path):
    RunWriter(tmp_path / "other")
    done = nanwatch(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"nanwatch: a logdir must hold a watched run; at {tmp_path} there is none.\n"


def test_a_missing_logdir_is_an_error(tmp_path):
    done = nanwatch(tmp_path / "missing", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"nanwatch: a logdir must be a directory; at {tmp_path / 'missing'} there is nothing.\n"


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--colour", "a"]])
def test_wrong_usage_ends_with_two(arguments):
    done = nanwatch(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: nanwatch ")


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"nanwatch {tb_nanwatch.__version__}\n"


def test_names_with_control_characters_are_shown_and_not_obeyed(tmp_path):
    write_finite(tmp_path, "[red]loud[/red] :smile:\n\x1b[2J")
    done = nanwatch(tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == r"[red]loud[/red] :smile:\n\x1b[2J  finite  2,000 steps"


def test_a_long_line_is_not_wrapped(tmp_path):
    name = "x" * 200
    write_finite(tmp_path, name)
    assert nanwatch(tmp_path, COLUMNS="40").stdout.splitlines()[0] == f"{name}  finite  2,000 steps"


def test_a_stream_that_cannot_encode_a_name_is_no_crash(tmp_path):
    write_finite(tmp_path, "日本")
    done = nanwatch(tmp_path, PYTHONIOENCODING="ascii")
    assert done.stdout.splitlines()[0] == r"\u65e5\u672c  finite  2,000 steps"
    done = nanwatch(tmp_path, "--json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["runs"][0]["run"] == "日本"


def test_a_directory_whose_name_does_not_decode_is_shown(tmp_path):
    write_finite(tmp_path, b"\xff".decode("utf-8", "surrogateescape"))
    write_finite(tmp_path)
    assert nanwatch(tmp_path).stdout.splitlines() == [
        "tanh  finite  2,000 steps",
        "  Finite in all 2,000 steps.",
        "",
        r"\udcff  finite  2,000 steps",
        "  Finite in all 2,000 steps.",
    ]
    assert json.loads(nanwatch(tmp_path, "--json").stdout)["runs"][1]["run"] == "\udcff"


def test_a_terminal_gets_colour_and_a_pipe_does_not(tmp_path):
    write_finite(tmp_path)
    assert "\x1b" not in nanwatch(tmp_path, TERM="xterm").stdout
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    subprocess.run([*COMMAND, str(tmp_path)], cwd=ROOT, env=environment, stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[32mfinite\x1b[0m" in shown


def test_a_broken_file_is_reported(tmp_path):
    writer = RunWriter(tmp_path / "nanwatch").header().spans(steps_of(0, 9)).spans(steps_of(10, 19))
    writer.path.write_bytes(writer.path.read_bytes()[:-7])
    done = nanwatch(tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        ".  incomplete  10 steps",
        "  Part of the log could not be read; the 10 steps that were read are finite.",
        "  Not read: events.out.tfevents.0.here ends within a record: its writer was stopped, or is still writing.",
    ]


def test_a_bad_run_outweighs_an_unreadable_run_in_the_exit_status(tmp_path):
    write_bad(tmp_path)
    path = RunWriter(tmp_path / "torn" / "nanwatch").header().spans(steps_of(0, 9)).path
    path.write_bytes(path.read_bytes()[:-7])
    assert nanwatch(tmp_path).returncode == 1
    assert nanwatch(tmp_path, "--run=torn").returncode == 2
    assert nanwatch(tmp_path, "--run=relu").returncode == 1


def test_a_log_of_a_newer_minor_version_is_read_and_reported(tmp_path):
    message = nanwatch_pb2.Header.FromString(wire.encode_header(HEADER))
    message.schema.minor = 99
    writer = RunWriter(tmp_path / "nanwatch").message("nanwatch/0/header", message.SerializeToString(), step=0)
    writer.spans(steps_of(0, 9))
    done = nanwatch(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1] == "  Finite in all 10 steps."
    assert lines[2].startswith("  About the log: nanwatch/0/header: the log is of schema 1.99, newer than 1.")


@pytest.mark.parametrize("address", ["gs://bucket/runs", "s3://bucket/runs", "hdfs://host/runs"])
def test_an_address_takes_one_sentence(address):
    done = nanwatch(address)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"nanwatch: a logdir must be a directory of this machine; {address} is an address: copy the run here, or open"
        " it in TensorBoard.\n"
    )


def test_tensorflow_is_not_imported(tmp_path):
    write_finite(tmp_path)
    program = "import sys; from tb_nanwatch.cli import main; main(); print('tensorflow' in sys.modules)"
    assert run_python("-c", program, tmp_path).stdout.splitlines()[-1] == "False"
