"""A run may have any name, and a path that cannot be written gives one warning."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
import tensorflow as tf

import tb_nanwatch
from tb_nanwatch.errors import SetupError
from tb_nanwatch.watch.drivers.keras.callback import make_run_of_copy
from tb_nanwatch.watch.drivers.options import directory_of
from tb_nanwatch.watch.record.archive import save_batch
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.record.paths import names_in, require_nameable
from tb_nanwatch.watch.replay.dump import folder_for_dump

UNNAMEABLE = ["a\0b", "a\udc80b"]


class Training:
    """One weight that descends by 1 in each finite step."""

    def __init__(self, logdir, **options):
        self.weight = tf.Variable([0.0], name="line/weight")
        self.watch = tb_nanwatch.Watch(logdir, [self.weight], **options)
        optimizer = tf.compat.v1.train.GradientDescentOptimizer(1.0)

        @self.watch.step
        def train_step(x):
            self.watch.apply_gradients(optimizer, [(x, self.weight)], loss=tf.reduce_sum(x))

        self._step = train_step

    def run(self, steps, value=1.0):
        for _ in range(steps):
            self._step(tf.constant([value]))


def train(logdir, steps):
    training = Training(logdir)
    training.run(steps)
    training.watch.close()


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*", "a?", "a\\b", "[", "with space", "ü"])
def test_each_training_into_a_directory_of_any_name_is_a_session(name, tmp_path, read):
    for steps in (3, 2):
        train(tmp_path / name, steps)
    assert [len(session.series) for session in read(tmp_path / name).log.sessions] == [3, 2]


@pytest.mark.parametrize("name", UNNAMEABLE)
@pytest.mark.parametrize("policy", ["record", "skip"])
def test_training_into_an_impossible_path_goes_on_with_one_warning(name, policy, tmp_path):
    training = Training(f"{tmp_path}/{name}", policy=policy)
    with pytest.warns(UserWarning, match="cannot write to .* training goes on") as caught:
        training.run(2)
        training.run(1, value=float("nan"))
        training.run(2)
        training.watch.close()
    assert len(caught) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", UNNAMEABLE)
def test_a_bad_step_is_reported_although_the_path_is_impossible(name, tmp_path):
    training = Training(f"{tmp_path}/{name}", keep_dump=True)
    with pytest.warns(UserWarning, match="training goes on"):
        training.run(2)
        with pytest.raises(tb_nanwatch.NonFiniteError, match="Step 2: NaN was in the input x"):
            training.run(1, value=float("nan"))
        training.watch.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", UNNAMEABLE)
def test_an_impossible_path_is_refused_before_a_file_is_created(name, tmp_path):
    path = f"{tmp_path}/{name}"
    with pytest.raises(OSError, match="a path must"):
        require_nameable(path)
    with pytest.raises(OSError, match="a path must"):
        folder_for_dump(path, "debugger")
    saved = save_batch(path, Call(print, (tf.constant(1.0),), {}), step=0)
    assert (saved.path, "a path must" in saved.notes[0]) == (None, True)
    assert make_run_of_copy(path) == "copy-1"
    assert list(tmp_path.iterdir()) == []


def test_a_logdir_that_is_deleted_while_training_is_one_warning(tmp_path):
    training = Training(tmp_path / "run", window=4, policy="record")
    training.run(4)
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(UserWarning, match=r"records nothing more; training goes on \(.* was deleted\)") as caught:
        training.run(20)
        training.watch.close()
    assert len(caught) == 1
    assert float(training.weight[0]) == -24.0


@pytest.mark.parametrize("name", ["x" * 300, "file/run"])
def test_a_path_that_the_system_refuses_is_one_warning(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot write to") as caught:
        train(tmp_path / name, 3)
    assert len(caught) == 1


def test_an_address_that_tensorflow_does_not_know_is_one_warning():
    with pytest.warns(UserWarning, match=re.escape("cannot write to 'nowhere://bucket/run/nanwatch'")) as caught:
        train("nowhere://bucket/run", 3)
    assert len(caught) == 1


def test_a_tilde_is_the_users_home_and_a_path_object_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert directory_of("~/runs", "a") == f"{tmp_path}/runs/a"
    assert directory_of(Path("~/runs/"), None) == f"{tmp_path}/runs"
    assert [directory_of(path, None) for path in ("/", "", "gs://bucket/run/")] == ["/", "", "gs://bucket/run"]


@pytest.mark.parametrize("logdir", [b"runs", 3, None])
def test_a_logdir_that_is_no_path_is_refused_at_once(logdir):
    with pytest.raises(SetupError, match="logdir must be a path"):
        directory_of(logdir, None)


def test_a_name_that_is_not_utf8_hides_no_other(tmp_path):
    (tmp_path / "a").write_text("")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_text("")
    assert "a" in names_in(str(tmp_path))
    assert names_in(str(tmp_path / "none")) == []


def test_the_command_in_the_message_can_be_run_in_a_shell(tmp_path):
    training = Training(tmp_path / "lr=[0.1] a")
    with warnings.catch_warnings(), pytest.raises(tb_nanwatch.NonFiniteError, match=r"nanwatch '/.*/lr=\[0.1\] a'$"):
        training.run(1, value=float("nan"))
