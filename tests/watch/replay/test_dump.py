"""What TensorFlow's debugger writes of a replay is complete, opens in its tab, and is written only when asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
from tensorboard.plugins.debugger_v2.debug_data_multiplexer import DebuggerV2EventMultiplexer
from tensorflow.python.debug.lib.debug_events_reader import DebugDataReader

from tests.watch.replay.programs import BAD, GOOD, log_step


def traces_of(folder):
    with DebugDataReader(str(folder)) as reader:
        reader.update()
        digests = reader.graph_execution_traces(digest=True)
        return [(digest.op_type, reader.graph_execution_trace_to_tensor_value(digest).tolist()) for digest in digests]


def nonfinite_of(folder):
    """Return the types of the operations whose output was not finite, in order of execution."""
    # CONCISE_HEALTH gives, of a tensor: its id, and how many elements it has, are -Inf, +Inf and NaN.
    return [kind for kind, (_, _, *counts) in traces_of(folder) if sum(counts)]


class TestKept:
    def test_the_reader_sees_every_operation_that_the_replay_ran_and_the_first_bad_one(self, tmp_path):
        program = log_step(tmp_path, keep_dump=True)
        program.step(GOOD)
        replay = program.bad_step().alert.replay
        assert (replay.outcome, replay.notes, replay.dump) == ("found", (), "debugger/step-1")
        kinds = [kind for kind, _ in traces_of(tmp_path / replay.dump)]
        assert {"Log", "Sum", "Mul", "ReadVariableOp"} <= set(kinds)
        assert nonfinite_of(tmp_path / replay.dump)[0] == "Log"

    def test_an_operation_in_a_loop_leaves_a_trace_for_each_time(self, tmp_path):
        def through(x):
            for _ in tf.range(7):
                x = tf.cos(x)
            return tf.math.log(x * 0.0)

        program = log_step(tmp_path, through, keep_dump=True)
        dump = program.bad_step(GOOD).alert.replay.dump
        assert [kind for kind, _ in traces_of(tmp_path / dump)].count("Cos") == 7

    def test_tensorboards_tab_opens_it_and_alerts(self, tmp_path):
        program = log_step(tmp_path, keep_dump=True)
        dump = program.bad_step().alert.replay.dump
        data = DebuggerV2EventMultiplexer(str(tmp_path / dump))
        (run,) = data.Runs()
        deadline_s = time.monotonic() + 30
        while not data.Alerts(run, 0, 0)["num_alerts"] and time.monotonic() < deadline_s:
            time.sleep(0.05)  # it reads in a thread
        (first,) = data.Alerts(run, 0, 1)["alerts"]
        assert (first["op_type"], first["alert_type"]) == ("Log", "InfNanAlert")
        assert str(Path(__file__).parent / "programs.py") in [file for _, file in data.SourceFileList(run)]

    def test_each_replay_of_a_program_has_a_folder_of_its_own(self, tmp_path):
        program = log_step(tmp_path, keep_dump=True)
        program.step(GOOD)
        dumps = [program.bad_step().alert.replay.dump for _ in range(2)]
        assert dumps == ["debugger/step-1", "debugger/step-2"]
        assert [nonfinite_of(tmp_path / dump)[0] for dump in dumps] == ["Log", "Log"]

    def test_a_run_begun_again_in_its_directory_leaves_the_old_dump_alone(self, tmp_path, read):
        for expected in ("debugger/step-0", "debugger/step-0-2"):
            program = log_step(tmp_path, keep_dump=True)
            assert program.bad_step().alert.replay.dump == expected
            program.watch.close()
        assert [alert.replay.dump for session in read(tmp_path).log.sessions for alert in session.alerts] == [
            "debugger/step-0",
            "debugger/step-0-2",
        ]
        assert [nonfinite_of(tmp_path / "debugger" / name)[0] for name in ("step-0", "step-0-2")] == ["Log", "Log"]

    def test_the_folder_of_an_earlier_program_is_left_alone(self, tmp_path):
        (tmp_path / "debugger" / "step-0").mkdir(parents=True)
        assert log_step(tmp_path, keep_dump=True).bad_step().alert.replay.dump == "debugger/step-0-2"
        assert list((tmp_path / "debugger" / "step-0").iterdir()) == []

    def test_a_folder_that_was_deleted_meanwhile_is_not_written_to_again(self, tmp_path):
        log_step(tmp_path, keep_dump=True).bad_step()
        shutil.rmtree(tmp_path)
        assert log_step(tmp_path, keep_dump=True).bad_step().alert.replay.dump == "debugger/step-0-2"

    def test_a_dump_that_cannot_be_written_is_noted_and_the_replay_runs_without_it(self, tmp_path):
        (tmp_path / "debugger").write_text("not a directory")
        replay = log_step(tmp_path, keep_dump=True).bad_step().alert.replay
        assert (replay.outcome, replay.dump) == ("found", None)
        assert replay.notes[0].startswith("The debugger's dump could not be written: ")


class TestTheUsersOwnDebugger:
    @pytest.mark.parametrize("keep_dump", [True, False])
    def test_the_users_debugger_continues_and_the_replay_finds_the_same(self, keep_dump, tmp_path):
        tf.debugging.experimental.enable_dump_debug_info(str(tmp_path / "own"), "CURT_HEALTH")
        try:
            program = log_step(tmp_path / "run", keep_dump=keep_dump)
            program.step(GOOD)
            error = program.bad_step()
            assert (error.alert.replay.outcome, error.verdict.first.op.type) == ("found", "Log")
            assert error.alert.replay.dump is None
            note = "TensorFlow's debugger was on already, and what it wrote of the replay is in its own dump."
            assert error.alert.replay.notes == ((note,) if keep_dump else ())
        finally:
            tf.debugging.experimental.disable_dump_debug_info()
        with DebugDataReader(str(tmp_path / "own")) as reader:
            reader.update()
            assert "nanwatch_trial" in {graph.name for graph in reader._graph_by_id.values()}


PROGRAM = """
import sys
import tensorflow as tf
from tests.watch.replay.programs import BAD, log_step

log_step(sys.argv[1]).bad_step(BAD)
"""


def test_without_keep_dump_nothing_is_left_but_the_log_and_the_batch(tmp_path):
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(tmp_path / "tmp")}
    # TensorFlow leaves the bytecode of the files that AutoGraph generates.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert list((tmp_path / "tmp").iterdir()) == []
    left = sorted(path.relative_to(tmp_path / "run").parts[0] for path in (tmp_path / "run").rglob("*"))
    assert sorted(set(left)) == ["batches", "nanwatch"]


def test_the_bad_batch_is_the_same_with_and_without_a_dump(tmp_path):
    verdicts = [log_step(tmp_path / str(keep), keep_dump=keep).bad_step(BAD).verdict for keep in (True, False)]
    chains = [[(link.op.type, link.phase, link.kind, link.samples) for link in verdict.chain] for verdict in verdicts]
    assert chains[0] == chains[1]
    assert [link[0] for link in chains[0]] == ["Log", "Sum", "Mul"]
